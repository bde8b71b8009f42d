"""How adapters relate before they are merged: overlap, sign conflicts, norms, what a rank keeps.

Facts for a dry run and for advice, each from factors in float64, one module at a time; advice and
layout are for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from adapterhub.compose.difference import effective_rank
from adapterhub.compose.factors import Factors, factors, total
from adapterhub.compose.members import Member, open_patches
from adapterhub.compose.plan import Plan, Step

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 4096  # entries of each module's deltas that are compared by sign


@dataclass(frozen=True, kw_only=True, slots=True)
class PairAt:
    """The deltas of two members, `one` and `other` in the plan's order, at one module.

    spans      mean squared cosine of the principal angles between what they write into, and
               between what they read: 0 for orthogonal spans, 1 for one inside the other
    conflicts  the part of sampled entries in which their signs differ
    disputed   sum |x y| over the entries x and y that differ in sign, estimated for all of them
    size       the same over all entries
    inner      <D1, D2>
    absolute   ||D1 - D2||
    """

    one: int
    other: int
    spans: tuple[float, float]
    conflicts: float
    disputed: float
    size: float
    inner: float
    absolute: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleRelation:
    """One module, weights included: by member the norm and the effective rank (Roy & Vetterli) of
    its delta, the squared singular values of the sum, largest first, and every pair that moves
    something there."""

    module: str
    norms: Mapping[int, float]
    effective_ranks: Mapping[int, float]
    squares: tuple[float, ...]
    pairs: tuple[PairAt, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """`subspace` is 0 for deltas whose spans are orthogonal and 1 for one inside the other, the
    mean over pairs, modules and both sides; `sign_conflicts` the part of sampled entries in which
    a pair disagrees. Both are None when no two members share a module. `norms` has one for each
    member, weight included. `kept` is the part of the sum's squared singular values that `rank`
    keeps, `error` the relative error it leaves."""

    shared: int
    modules: int
    subspace: float | None
    sign_conflicts: float | None
    norms: tuple[float, ...]
    rank: int
    kept: float
    error: float


def overlap(
    members: Sequence[Member],
    plan: Plan,
    *,
    rank: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Overlap:
    """Read every module once. `rank` is the one to judge, by default the largest that came in."""
    judged = rank or max(part.rank for step in plan.steps for part in step.parts)
    found = list(relations(members, plan, on_step=on_step))
    pairs = [pair for module in found for pair in module.pairs]
    kept = kept_share(found, judged)
    return Overlap(
        shared=plan.shared,
        modules=len(plan.steps),
        subspace=_mean([side for pair in pairs for side in pair.spans]),
        sign_conflicts=_mean([pair.conflicts for pair in pairs]),
        norms=total_norms(found, len(members)),
        rank=judged,
        kept=kept,
        error=math.sqrt(max(0.0, 1.0 - kept)),
    )


def relations(
    members: Sequence[Member], plan: Plan, *, on_step: Callable[[Step], None] | None = None
) -> Iterator[ModuleRelation]:
    """Read every module once, in the plan's order, and hold the tensors of one at a time."""
    with ExitStack() as files:
        streams = [
            files.enter_context(open_patches(member, only=plan.modules(index)))
            for index, member in enumerate(members)
        ]
        for step in plan.steps:
            deltas = {
                part.member: factors(streams[part.member].take(step.module), weight=part.weight)
                for part in step.parts
            }
            yield _related(step.module, deltas)
            if on_step:
                on_step(step)


def total_norms(found: Sequence[ModuleRelation], members: int) -> tuple[float, ...]:
    """The norm of each of so many members over all the modules."""
    return tuple(
        math.hypot(*(m.norms.get(member, 0.0) for m in found)) for member in range(members)
    )


def kept_share(found: Sequence[ModuleRelation], rank: int) -> float:
    """The part of the sum's squared norm that its best approximation of this rank holds, 1 where
    there is no norm."""
    mass = sum(sum(module.squares) for module in found)
    return sum(sum(module.squares[:rank]) for module in found) / mass if mass else 1.0


def _related(module: str, deltas: Mapping[int, Factors]) -> ModuleRelation:
    values: dict[int, Tensor] = {}
    spans: dict[int, tuple[Tensor, Tensor]] = {}
    for member, delta in deltas.items():
        U, values[member], V = delta.decomposed()
        spans[member] = U, V
    norms = {member: float(found.norm()) for member, found in values.items()}
    entries = {member: _sampled(delta) for member, delta in deltas.items()}
    pairs = []
    for one, other in combinations(deltas, 2):
        if 0 in (spans[one][0].shape[1], spans[other][0].shape[1]):
            continue  # an untrained adapter spans nothing and conflicts with nobody
        pairs.append(_pair(one, other, deltas=deltas, norms=norms, spans=spans, entries=entries))
    squares = total(list(deltas.values())).singular_values().square()
    return ModuleRelation(
        module=module,
        norms=norms,
        effective_ranks={member: effective_rank(found) for member, found in values.items()},
        squares=tuple(squares.tolist()),
        pairs=tuple(pairs),
    )


def _pair(
    one: int,
    other: int,
    *,
    deltas: Mapping[int, Factors],
    norms: Mapping[int, float],
    spans: Mapping[int, tuple[Tensor, Tensor]],
    entries: Mapping[int, Tensor],
) -> PairAt:
    mine, theirs = deltas[one], deltas[other]
    written, read = (_shared_part(a, b) for a, b in zip(spans[one], spans[other], strict=True))
    inner = mine.inner(theirs)
    products = entries[one] * entries[other]
    all_of_them = len(mine.B) * mine.A.shape[1] / SAMPLES
    return PairAt(
        one=one,
        other=other,
        spans=(written, read),
        conflicts=float((products < 0).double().mean()),
        disputed=float(-products.clamp(max=0.0).sum()) * all_of_them,
        size=float(products.abs().sum()) * all_of_them,
        inner=inner,
        # Good to about 1e-8 of the norms, below which no two deltas in float32 are apart.
        absolute=math.sqrt(max(0.0, norms[one] ** 2 + norms[other] ** 2 - 2.0 * inner)),
    )


def _shared_part(one: Tensor, other: Tensor) -> float:
    """Mean squared cosine of the principal angles between two spans."""
    return float((one.mT @ other).square().sum()) / min(one.shape[1], other.shape[1])


def _sampled(delta: Factors) -> Tensor:
    """Entries of B A at the same pseudo-random places for every delta of this shape."""
    places = torch.Generator().manual_seed(0)
    rows = torch.randint(len(delta.B), (SAMPLES,), generator=places)
    columns = torch.randint(delta.A.shape[1], (SAMPLES,), generator=places)
    return (delta.B[rows] * delta.A[:, columns].mT).sum(dim=1)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
