"""Carry out a plan: combine module by module and write one adapter that plain peft loads.

Holds one module's tensors and the finished factors; which arithmetic is used is the strategy's
business, and what fits together was decided by the plan.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from adapterhub.compose.factors import difference, factors, total
from adapterhub.compose.members import Member, PatchStream, open_patches
from adapterhub.compose.merged_folder import write_merged
from adapterhub.compose.plan import Plan, Step
from adapterhub.domain.patch import Affine
from adapterhub.domain.protocols import Combine
from adapterhub.errors import MismatchError, NoEffectError, PluginError
from adapterhub.hub.staging import check_free, staged_folder
from adapterhub.plugin.catalog import load_target

if TYPE_CHECKING:
    from torch import Tensor

# Below this part of the members' own norms, what is left of a sum is rounding.
NOTHING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleResult:
    """One module's merged rank, and how far it is from the exact sum there."""

    module: str
    rank: int
    relative_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What was written. `relative_error` is ||merged - exact||_F / ||exact||_F over all modules,
    of the tensors as stored against the exact weighted sum; below 1e-8 it may read as 0."""

    folder: Path
    rank: int
    relative_error: float
    seconds: float
    per_module: tuple[ModuleResult, ...]


@dataclass(frozen=True, slots=True)
class _Done:
    """A finished module: stored factors, and the squared norms its error is made of."""

    module: str
    A: Tensor
    B: Tensor
    error: float
    exact: float
    parts: float


def merge(
    members: Sequence[Member],
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> Merged:
    """Write the plan's result to `out`, whole or not at all; `on_step` hears of finished modules.

    Tensors are stored in the members' dtype if they share one, else in float32. Raises UsageError
    when `out` is taken, NoEffectError when the members cancel.
    """
    check_free(out, overwrite=overwrite)
    started = time.perf_counter()
    done = []
    for step, result in _results(members, plan):
        done.append(result)
        if on_step:
            on_step(step)
    _check_effect(done, plan)
    with staged_folder(out, overwrite=overwrite) as stage:
        pairs = {result.module: (result.A, result.B) for result in done}
        write_merged(stage, pairs, members=members, plan=plan, name=out.absolute().name)
    return Merged(
        folder=out,
        rank=max(len(result.A) for result in done),
        relative_error=_ratio(sum(r.error for r in done), sum(r.exact for r in done)),
        seconds=time.perf_counter() - started,
        per_module=tuple(
            ModuleResult(module=r.module, rank=len(r.A), relative_error=_ratio(r.error, r.exact))
            for r in done
        ),
    )


def _results(members: Sequence[Member], plan: Plan) -> Iterator[tuple[Step, _Done]]:
    combine: Combine = load_target(plan.strategy.target)
    with ExitStack() as files:
        streams = [files.enter_context(open_patches(member)) for member in members]
        for step in plan.steps:
            yield step, _one(step, plan, streams, combine)


def _one(step: Step, plan: Plan, streams: Sequence[PatchStream], combine: Combine) -> _Done:
    patches = [streams[part.member].take(step.module) for part in step.parts]
    weights = [plan.terms[part.member].weight for part in step.parts]
    merged = _stored(combine(patches, weights, rank=plan.limit, **plan.options), step, plan)
    parts = [factors(patch, weight=weight) for patch, weight in zip(patches, weights, strict=True)]
    exact = total(parts)
    return _Done(
        module=step.module,
        A=merged.A,
        B=merged.B,
        error=difference(factors(merged), exact).norm_squared(),
        exact=exact.norm_squared(),
        parts=sum(part.norm_squared() for part in parts),
    )


def _stored(merged: Affine, step: Step, plan: Plan) -> Affine:
    """The strategy's answer with scaling 1, in the dtype it will be stored in."""
    if not merged.low_rank_only:
        raise PluginError(
            f"the strategy {plan.strategy.name} answered with more than a low-rank delta "
            f"at {step.module}",
            hint="use linear or svd, and report it to the strategy's plugin",
        )
    dtype: torch.dtype = getattr(torch, plan.dtype)
    A, B = merged.A.to(dtype), (merged.B * merged.scaling).to(dtype)
    if not (torch.isfinite(A).all() and torch.isfinite(B).all()):
        raise MismatchError(
            f"the sum at {step.module} does not fit {plan.dtype}",
            hint="look for an adapter with infinite values (`adapterhub verify`) or lower the "
            "weights",
        )
    return Affine(A=A.contiguous(), B=B.contiguous())


def _check_effect(done: Sequence[_Done], plan: Plan) -> None:
    left = math.sqrt(sum(result.exact for result in done))
    if left <= NOTHING * math.sqrt(sum(result.parts for result in done)):
        names = " and ".join(term.ref for term in plan.terms)
        raise NoEffectError(
            f"{names} cancel each other: nothing is left of their sum",
            hint="change the weights, or check that they are not the same adapter",
        )


def _ratio(error: float, exact: float) -> float:
    return math.sqrt(error / exact) if exact else 0.0
