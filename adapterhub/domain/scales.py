"""A weight of its own for some modules of an adapter: which ones, by a pattern, and how much.

A pattern is a run of dotted pieces that stands somewhere in a module's name. A piece is a word, in
which `*` stands for any letters, a number, or a range of numbers with both its ends:

    mlp                  every module called mlp, and all inside one
    self_attn.q_proj     the query projection of every layer
    layers.0-11          all of the first twelve layers
    layers.0-11.*.*_proj what ends in _proj and lies one piece below these
    *                    every module

The factors of all patterns that are about a module multiply with the adapter's weight, so that
their order means nothing; a factor of 0 leaves the module as the base has it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

from adapterhub.errors import UsageError

# Pattern -> factor.
Scales = Mapping[str, float]
NO_SCALES: Scales = MappingProxyType({})

MOST = 1e3
_PATTERNS = 100
_LONGEST = 200
_PIECE = re.compile(r"[\w*-]+", re.ASCII)
_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})", re.ASCII)
HINT = "a pattern is a part of a module's name, such as mlp, self_attn.q_proj or layers.0-11"


class ModuleWeights(Mapping[str, float]):
    """The weight of an adapter at each of its modules; equal ones are equal keys."""

    __slots__ = ("_weights",)

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)

    def __getitem__(self, module: str) -> float:
        return self._weights[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(frozenset(self._weights.items()))

    def __repr__(self) -> str:
        return f"ModuleWeights({self._weights})"

    def times(self, weight: float) -> ModuleWeights:
        return ModuleWeights({module: own * weight for module, own in self._weights.items()})


def fault_of(scales: Scales) -> tuple[str, str] | None:
    """What is wrong with these by themselves, and the next move; None where nothing is."""
    if len(scales) > _PATTERNS:
        return f"{len(scales)} patterns are too many", f"{_PATTERNS} are enough for any adapter"
    for pattern, factor in scales.items():
        if len(pattern) > _LONGEST or not all(map(_is_piece, pattern.split("."))):
            return f"{pattern[:_LONGEST]!r} is no pattern of modules", HINT
        if not math.isfinite(factor) or abs(factor) > MOST:
            return (
                f"the factor {factor:g} of {pattern} is of no use",
                f"factors are finite, and at most {MOST:g} in size; 0 leaves modules alone",
            )
    return None


def matches(pattern: str, module: str) -> bool:
    wanted, pieces = pattern.split("."), module.split(".")
    starts = range(len(pieces) - len(wanted) + 1)
    return any(all(map(_fits, wanted, pieces[start:])) for start in starts)


def both(one: Scales, other: Scales) -> dict[str, float]:
    """The effect of one after the other."""
    return {**one, **{key: one.get(key, 1.0) * factor for key, factor in other.items()}}


def module_weights(
    ref: str, *, weight: float, scales: Scales, modules: Collection[str]
) -> ModuleWeights:
    """What the adapter `ref` weighs at each of its modules.

    Raises UsageError for a pattern that is about none of them, for scales that leave nothing of the
    adapter, and for a product that is too large.
    """
    weights = dict.fromkeys(modules, weight)
    for pattern, factor in scales.items():
        found = [module for module in weights if matches(pattern, module)]
        if not found:
            raise UsageError(
                f"{pattern} is about no module of {ref}", hint=_instead(pattern, weights)
            )
        for module in found:
            weights[module] *= factor
    if weights and not any(weights.values()):
        raise UsageError(
            f"every module of {ref} is scaled by 0, so that nothing of it takes part",
            hint=f"leave {ref} out",
        )
    large = next((module for module, own in weights.items() if abs(own) > MOST), None)
    if large is not None:
        raise UsageError(
            f"{ref} would weigh {weights[large]:g} at {large}",
            hint=f"a weight and its factors are at most {MOST:g} together",
        )
    return ModuleWeights(weights)


def scales_text(scales: Scales) -> str:
    """`layers.0-11 x 0.5, mlp x 0`"""
    return ", ".join(f"{pattern} x {factor:g}" for pattern, factor in scales.items())


def _is_piece(piece: str) -> bool:
    span = _RANGE.fullmatch(piece)
    if span is not None:
        return int(span[1]) <= int(span[2])
    return _PIECE.fullmatch(piece) is not None


def _fits(wanted: str, piece: str) -> bool:
    span = _RANGE.fullmatch(wanted)
    if span is None:
        return fnmatchcase(piece, wanted)
    return piece.isdecimal() and int(span[1]) <= int(piece) <= int(span[2])


def _instead(pattern: str, modules: Collection[str]) -> str:
    """A pattern much like it that is about some module, or what there is."""
    words: dict[str, None] = {}
    numbers: set[int] = set()
    for module in modules:
        pieces = module.split(".")
        numbers |= {int(piece) for piece in pieces if piece.isdecimal()}
        for end in range(1, len(pieces) + 1):
            for start in (end - 1, max(0, end - 2)):
                run = pieces[start:end]
                if not any(piece.isdecimal() for piece in run):
                    words.setdefault(".".join(run))
    close = difflib.get_close_matches(pattern, words, n=1)
    # Of a pattern with numbers, these are what is wrong as often as a word.
    if close and not any(letter.isdecimal() for letter in pattern):
        return f"did you mean {close[0]}?"
    last = dict.fromkeys(module.rpartition(".")[2] for module in modules)
    names = ", ".join(list(last)[:8]) + (", ..." if len(last) > 8 else "")
    layers = f", in layers {min(numbers)} to {max(numbers)}" if numbers else ""
    return f"it has {names or 'no modules'}{layers}"
