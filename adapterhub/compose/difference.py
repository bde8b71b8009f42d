"""What differs between two adapters, module by module, from the factors of their deltas alone.

A delta is scaling * B A; nothing of the size out x in is ever made. Which of two differing
adapters is the better one cannot be told from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch

from adapterhub.compose.factors import Factors, difference, factors
from adapterhub.compose.members import Member, PatchStream, low_rank, open_patches
from adapterhub.compose.pairs import NEAR_DUPLICATE
from adapterhub.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor

    from adapterhub.domain.patch import Affine, Patch

EQUAL = 1e-6  # as NEAR_DUPLICATE, for deltas are stored in float32 at best


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleDifference:
    """Two deltas at one module; a side that has none there is None throughout.

    norms            Frobenius norms of the deltas
    effective_ranks  exp of the entropy of the singular values as shares of their sum
                     (Roy & Vetterli, 2007): between 1 and the rank
    angles           principal angles in degrees between the spaces the two write into (column
                     spaces of the deltas), smallest first
    cosine           of the two deltas as vectors
    relative         ||D1 - D2|| / max(||D1||, ||D2||)
    """

    module: str
    norms: tuple[float | None, float | None]
    effective_ranks: tuple[float | None, float | None]
    angles: tuple[float, ...] | None
    cosine: float | None
    relative: float
    absolute: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """All modules, the most different first, and what could not be compared, with the reason.

    `norms` and `relative` are those of all the modules together.
    """

    modules: tuple[ModuleDifference, ...]
    left_out: tuple[tuple[str, str], ...]
    norms: tuple[float, float]
    relative: float

    @property
    def near_duplicate(self) -> bool:
        """Whether the compared deltas are one for all that matters, and nothing is left out."""
        return bool(self.modules) and not self.left_out and self.relative <= NEAR_DUPLICATE


def compare(one: Member, other: Member) -> Difference:
    """Read both adapters once. A part that is no low-rank delta, or not finite, or of another shape
    on either side, is left out by name.

    Raises CapabilityError for an adapter whose method describes no parts, and what reading raises.
    """
    found: list[ModuleDifference] = []
    left_out: dict[str, str] = {}
    with open_patches(one) as left, open_patches(other) as right:
        sides = (_deltas(one, left, left_out), _deltas(other, right, left_out))
        for module, mine, theirs in _paired(*sides):
            if mine is not None and theirs is not None and _shape(mine) != _shape(theirs):
                left_out[module] = f"{_shape(mine)} in one, {_shape(theirs)} in the other"
            else:
                found.append(_compare(module, mine, theirs))
    # One side of a module alone would look like a module that the other has not.
    kept = [item for item in found if item.module not in left_out]
    norms = _total(item.norms[0] for item in kept), _total(item.norms[1] for item in kept)
    return Difference(
        # Rounded, so that rounding does not decide the order.
        modules=tuple(sorted(kept, key=lambda item: (-round(item.relative, 6), item.module))),
        left_out=tuple(sorted(left_out.items())),
        norms=norms,
        relative=_ratio(_total(item.absolute for item in kept), *norms),
    )


def _deltas(
    member: Member, stream: PatchStream, left_out: dict[str, str]
) -> Iterator[tuple[str, Factors]]:
    """The low-rank deltas among a member's patches; of the others, why not."""
    for module, patch in _described(member, stream):
        try:
            delta = _factors(low_rank(module, patch))
        except CapabilityError as error:
            left_out[module] = error.message
            continue
        if bool(torch.isfinite(delta.A).all() and torch.isfinite(delta.B).all()):
            yield module, delta
        else:
            left_out[module] = "it holds NaN or infinity"


def _described(member: Member, stream: PatchStream) -> Iterator[tuple[str, Patch]]:
    try:
        yield from stream.rest()
    except CapabilityError as error:
        raise CapabilityError(f"{member.ref}: {error.message}", hint=error.hint) from error


def _factors(affine: Affine) -> Factors:
    """A convolution's kernel counts as part of what it reads."""
    return factors(replace(affine, A=affine.A.flatten(1), B=affine.B.flatten(1)))


def _paired(
    left: Iterator[tuple[str, Factors]], right: Iterator[tuple[str, Factors]]
) -> Iterator[tuple[str, Factors | None, Factors | None]]:
    """Both sides of each module as soon as both have come up; one side alone at the end."""
    waiting: tuple[dict[str, Factors], dict[str, Factors]] = ({}, {})
    for pair in zip_longest(left, right):
        for side, item in enumerate(pair):
            if item is not None:
                waiting[side][item[0]] = item[1]
        for module in {item[0] for item in pair if item is not None}:
            if module in waiting[0] and module in waiting[1]:
                yield module, waiting[0].pop(module), waiting[1].pop(module)
    for module, delta in waiting[0].items():
        yield module, delta, None
    for module, delta in waiting[1].items():
        yield module, None, delta


def _compare(module: str, one: Factors | None, other: Factors | None) -> ModuleDifference:
    values = tuple(None if side is None else side.singular_values() for side in (one, other))
    norms = tuple(None if side is None else float(side.norm()) for side in values)
    absolute = max(norm or 0.0 for norm in norms)
    cosine = angles = None
    if one is not None and other is not None:
        # By singular values of the difference: from the norms of the parts, the difference of
        # two nearly equal deltas would be rounding.
        absolute = float(difference(one, other).singular_values().norm())
        cosine = _cosine(one, other, *norms)
        angles = principal_angles(one.spans()[0], other.spans()[0])
    return ModuleDifference(
        module=module,
        norms=(norms[0], norms[1]),
        effective_ranks=(_rank(values[0]), _rank(values[1])),
        angles=angles,
        cosine=cosine,
        relative=_ratio(absolute, *(norm or 0.0 for norm in norms)),
        absolute=absolute,
    )


def effective_rank(values: Tensor) -> float:
    """exp(-sum p ln p) of singular values, p = value / sum (Roy & Vetterli, "The effective rank: a
    measure of effective dimensionality", EUSIPCO 2007); 0 where all are zero."""
    total = float(values.sum())
    if total == 0.0:
        return 0.0
    return math.exp(float(torch.special.entr(values / total).sum()))


def principal_angles(one: Tensor, other: Tensor) -> tuple[float, ...]:
    """Degrees between the spans of orthonormal columns (n, k) and (n, l), smallest first.

    By cosines where those are exact and by sines where the angles are small (Björck & Golub 1973).
    """
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    if other.shape[1] == 0:
        return ()
    overlap = one.mT @ other
    cosines = torch.linalg.svdvals(overlap).clamp(max=1.0)
    sines = torch.linalg.svdvals(other - one @ overlap).flip(0).clamp(max=1.0)
    angles = torch.where(cosines.square() < 0.5, torch.acos(cosines), torch.asin(sines))
    return tuple(float(angle) for angle in torch.rad2deg(angles))


def _rank(values: Tensor | None) -> float | None:
    return None if values is None else effective_rank(values)


def _cosine(one: Factors, other: Factors, mine: float | None, theirs: float | None) -> float | None:
    """None beside a delta of zero, which has no direction."""
    if not mine or not theirs:
        return None
    return max(-1.0, min(1.0, one.inner(other) / mine / theirs))


def _shape(delta: Factors) -> tuple[int, int]:
    return int(delta.B.shape[0]), int(delta.A.shape[1])


def _total(norms: Iterator[float | None]) -> float:
    return math.sqrt(sum((norm or 0.0) ** 2 for norm in norms))


def _ratio(part: float, *wholes: float) -> float:
    whole = max(wholes)
    return part / whole if whole else 0.0
