"""Several adapters answering together: what they are, with which weights, by which strategy.

`A+0.5*B` and `A*0.8+B` are the written forms; the arithmetic lives in `adapterhub.compose`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.scales import Scales, scales_text
from adapterhub.errors import UsageError

LINEAR = "linear"
SEQUENTIAL = "sequential"
SWITCH = "switch"
ROUTE = "route"
# Those by which each request is answered by one member alone.
CHOOSING = (SWITCH, ROUTE)
# Those that exist while adapters are attached and never merged, and why.
NEVER_MERGED = {
    SEQUENTIAL: "what feeds the next adapter is no sum of deltas",
    SWITCH: "each request names the one adapter that answers it",
    ROUTE: "each prompt decides which one adapter answers it",
}
# Every other strategy exists merged alone.
ATTACHED = (LINEAR, *NEVER_MERGED)
# What peft calls the exact sum.
ALIASES = {"cat": LINEAR}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One adapter in a composition: a ref or a path as written, its weight, and what some of its
    modules have beside it."""

    ref: str
    weight: float = 1.0
    scales: Scales = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it takes part as it is stored."""
        return self.weight == 1.0 and not self.scales

    def __str__(self) -> str:
        return term_text(self.ref, self.weight, self.scales)


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """Additive by default; `sequential` lets each adapter change what those before it made, and by
    `switch` and `route` one of them answers. `rank` limits a merged result, `options` are the
    strategy's own numbers."""

    terms: tuple[Term, ...]
    strategy: str = LINEAR
    rank: int | None = None
    options: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        return len(self.terms) == 1 and self.terms[0].whole

    def __str__(self) -> str:
        return "+".join(map(str, self.terms))


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedTerm:
    """One adapter of a written composition; `sha256` is that of its weights file, `config_sha256`
    that of its config's canonical JSON. An adapter without weights has that one in both. `scales`
    are never empty."""

    ref: str
    weight: float
    sha256: str
    commit: str | None = None
    config_sha256: str | None = None
    scales: Scales | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedComposition:
    """A composition as `composition.toml` keeps it: every adapter and the base nailed down, and how
    its weights were found, if they were searched for."""

    base: BaseRecord
    terms: tuple[PinnedTerm, ...]
    strategy: str = LINEAR
    rank: int | None = None
    options: Mapping[str, int | float] | None = None
    searched: Mapping[str, str | int | float] | None = None
    written_by: str | None = None

    @property
    def composition(self) -> Composition:
        """The same adapters by ref alone; who loads them compares `commit` and `sha256`."""
        terms = tuple(
            Term(ref=term.ref, weight=term.weight, scales=term.scales or {}) for term in self.terms
        )
        return Composition(
            terms=terms, strategy=self.strategy, rank=self.rank, options=self.options or {}
        )


def term_text(ref: str, weight: float, scales: Scales | None = None) -> str:
    """`0.5*A (layers.0-11 x 0.5, mlp x 0)`; the ref alone for a whole adapter."""
    weighed = ref if weight == 1.0 else f"{weight:g}*{ref}"
    return f"{weighed} ({scales_text(scales)})" if scales else weighed


def parse_composition(text: str) -> Composition:
    """Parse `A+0.5*B`. Raises UsageError on an empty term, a bad weight or a repeated adapter."""
    terms = tuple(_parse_term(part.strip(), text) for part in text.split("+"))
    refs = [term.ref for term in terms]
    repeated = next((ref for ref in refs if refs.count(ref) > 1), None)
    if repeated:
        raise UsageError(
            f"{repeated} appears twice in {text!r}", hint=f"give it one weight: 2*{repeated}"
        )
    return Composition(terms=terms)


def _parse_term(part: str, text: str) -> Term:
    left, star, right = (piece.strip() for piece in part.partition("*"))
    if not left or (star and not right):
        raise UsageError(
            f"{text!r} is not a composition", hint="write A+B, A+0.5*B or a composition.toml"
        )
    if not star:
        return Term(ref=left)
    for number, ref in ((left, right), (right, left)):
        if _NUMBER.fullmatch(number):
            return Term(ref=ref, weight=_weight(number, text))
    raise UsageError(f"no weight in {part!r}", hint="a weight is a number: 0.5*user/en2ko-lora")


def _weight(number: str, text: str) -> float:
    weight = float(number)
    if not math.isfinite(weight) or weight == 0.0 or abs(weight) > 1e3:
        raise UsageError(
            f"the weight {number} in {text!r} is of no use",
            hint="weights are finite, not zero, and at most 1000 in size",
        )
    return weight
