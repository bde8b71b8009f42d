"""Gather what is known of two adapters module by module: over a layer, or over all of them.

Adds figures up; it has never seen a tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapterhub.compose.report import ModuleRelation

# ||D1 - D2|| / max(||D1||, ||D2||) up to which two adapters count as one: rounding both factors to
# bfloat16 (2**-9 each) stays below it, a step of training at any usual rate does not for long.
NEAR_DUPLICATE = 0.01
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFigures:
    """Two members, in the plan's order, over `modules` that both change.

    written, read    mean squared cosine of the principal angles between what they write into, and
                     between what they read
    conflicts        the part of entries in which their signs differ
    disputed         the same by weight |x y| of the two entries: 0.5 of deltas that have nothing to
                     do with each other, 1 of opposites
    cosine           of the two deltas as vectors
    relative         ||D1 - D2|| / max(||D1||, ||D2||), with the modules that one of them lacks
    norms            of each, there too
    effective_ranks  exp of the entropy of the singular values, mean over the modules
    """

    one: int
    other: int
    modules: int
    written: float
    read: float
    conflicts: float
    disputed: float
    cosine: float
    relative: float
    norms: tuple[float, float]
    effective_ranks: tuple[float, float]

    @property
    def overlap(self) -> float:
        """sqrt(written * read): the largest cosine that two deltas with these spans can have, where
        the singular values of each are equal (Cauchy-Schwarz on U1^T U2 and V1^T V2)."""
        return math.sqrt(self.written * self.read)


def gathered(found: Sequence[ModuleRelation]) -> tuple[PairFigures, ...]:
    """Every pair that shares a module, in order."""
    members = sorted({member for module in found for member in module.norms})
    figures = (pair_of(found, *pair) for pair in combinations(members, 2))
    return tuple(item for item in figures if item is not None)


def by_layer(
    found: Sequence[ModuleRelation], one: int, other: int
) -> dict[int | None, PairFigures]:
    """The pair in each layer where both change something; None is what stands outside of all."""
    layers: dict[int | None, list[ModuleRelation]] = {}
    for module in found:
        layers.setdefault(place_of(module.module)[0], []).append(module)
    ordered = sorted(layers.items(), key=lambda item: (item[0] is None, item[0] or 0))
    figures = ((layer, pair_of(modules, one, other)) for layer, modules in ordered)
    return {layer: item for layer, item in figures if item is not None}


def place_of(module: str) -> tuple[int | None, str]:
    """The layer of a module and what it is there: `model.layers.3.mlp.up_proj` is the `mlp.up_proj`
    of layer 3, `lm_head` the `lm_head` of none."""
    number = _NUMBER.search(module)
    if number is None:
        return None, module
    return int(number[1]), module[number.end() :] or module


def pair_of(found: Sequence[ModuleRelation], one: int, other: int) -> PairFigures | None:
    """These two; None where they share nothing."""
    pairs = [(m, pair) for m in found for pair in m.pairs if (pair.one, pair.other) == (one, other)]
    if not pairs:
        return None
    shared = [pair for _, pair in pairs]
    norms = tuple(math.hypot(*(m.norms.get(who, 0.0) for m in found)) for who in (one, other))
    # Of modules that both change; a part of either that the other lacks has no direction to share.
    common = tuple(math.hypot(*(m.norms[who] for m, _ in pairs)) for who in (one, other))
    both = {m.module for m, _ in pairs}
    alone = [_alone(m, one, other) for m in found if m.module not in both]
    size = sum(pair.size for pair in shared)
    return PairFigures(
        one=one,
        other=other,
        modules=len(pairs),
        written=_mean(pair.spans[0] for pair in shared),
        read=_mean(pair.spans[1] for pair in shared),
        conflicts=_mean(pair.conflicts for pair in shared),
        disputed=sum(pair.disputed for pair in shared) / size if size else 0.0,
        cosine=max(-1.0, min(1.0, sum(p.inner for p in shared) / (common[0] * common[1]))),
        relative=math.hypot(*(pair.absolute for pair in shared), *alone) / max(norms),
        norms=(norms[0], norms[1]),
        effective_ranks=(
            _mean(m.effective_ranks[one] for m, _ in pairs),
            _mean(m.effective_ranks[other] for m, _ in pairs),
        ),
    )


def _alone(module: ModuleRelation, one: int, other: int) -> float:
    """What the two differ by at a module where no more than one of them does anything."""
    return math.hypot(module.norms.get(one, 0.0), module.norms.get(other, 0.0))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
