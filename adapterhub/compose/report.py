"""How adapters relate before they are merged: overlap, sign conflicts, norms, what a rank keeps.

Facts for a dry run, each from factors in float64; advice and layout are the command's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from adapterhub.compose.factors import Factors, factors, total
from adapterhub.compose.members import Member, open_patches
from adapterhub.compose.plan import Plan, Step

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 4096  # entries of each module's deltas that are compared by sign


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


@dataclass
class _Sums:
    """Running totals over the modules."""

    norms: list[float]
    subspace: list[float] = field(default_factory=list)
    conflicts: list[float] = field(default_factory=list)
    kept: float = 0.0
    mass: float = 0.0


def overlap(
    members: Sequence[Member],
    plan: Plan,
    *,
    rank: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Overlap:
    """Read every module once. `rank` is the one to judge, by default the largest that came in."""
    judged = rank or max(part.rank for step in plan.steps for part in step.parts)
    sums = _Sums(norms=[0.0] * len(members))
    with ExitStack() as files:
        streams = [files.enter_context(open_patches(member)) for member in members]
        for step in plan.steps:
            deltas = {
                part.member: factors(
                    streams[part.member].take(step.module), weight=plan.terms[part.member].weight
                )
                for part in step.parts
            }
            _add(sums, deltas, rank=judged)
            if on_step:
                on_step(step)
    lost = 1.0 - sums.kept / sums.mass if sums.mass else 0.0
    return Overlap(
        shared=plan.shared,
        modules=len(plan.steps),
        subspace=_mean(sums.subspace),
        sign_conflicts=_mean(sums.conflicts),
        norms=tuple(math.sqrt(norm) for norm in sums.norms),
        rank=judged,
        kept=1.0 - lost,
        error=math.sqrt(max(0.0, lost)),
    )


def _add(sums: _Sums, deltas: dict[int, Factors], *, rank: int) -> None:
    for member, delta in deltas.items():
        sums.norms[member] += delta.norm_squared()
    squares = total(list(deltas.values())).singular_values().square()
    sums.kept += float(squares[:rank].sum())
    sums.mass += float(squares.sum())
    spans = {member: delta.spans() for member, delta in deltas.items()}
    entries = {member: _sampled(delta) for member, delta in deltas.items()}
    for one, other in combinations(deltas, 2):
        if 0 in (spans[one][0].shape[1], spans[other][0].shape[1]):
            continue  # an untrained adapter spans nothing and conflicts with nobody
        sums.subspace += [_shared_part(a, b) for a, b in zip(spans[one], spans[other], strict=True)]
        sums.conflicts.append(float((entries[one] * entries[other] < 0).double().mean()))


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
