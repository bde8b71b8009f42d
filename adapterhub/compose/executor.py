"""Carry out a plan: combine module by module and write one adapter that plain peft loads.

Holds one module's tensors at a time; which arithmetic is used is the strategy's
business, and what fits together was decided by the plan.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adapterhub.compose.closeness import Squares, closeness
from adapterhub.compose.members import Member, open_patches
from adapterhub.compose.merged_folder import MergedWeights, write_descriptions
from adapterhub.compose.plan import Plan, Step
from adapterhub.domain.manifest import WEIGHTS_FILE
from adapterhub.domain.patch import Affine, Deltas
from adapterhub.domain.protocols import Combine
from adapterhub.errors import MismatchError, NoEffectError, PluginError
from adapterhub.hub.staging import check_free, staged_folder
from adapterhub.plugin.catalog import load_target

# Below this part of the members' own norms, what is left of a sum is rounding.
NOTHING = 1e-6
# Of one to eight, the quickest on an H100 (2026-11-24): more wait for each other's Python.
_THREADS = 3


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
    """A finished module: the rank, and the squared norms its error is made of."""

    module: str
    rank: int
    squares: Squares


def merge(
    members: Sequence[Member],
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    device: str = "cpu",
    on_step: Callable[[Step], None] | None = None,
) -> Merged:
    """Write the plan's result to `out`, whole or not at all; `on_step` hears of finished modules.

    Tensors are stored in the members' dtype if they share one, else in float32. On a CPU the same
    members and plan give the same bytes, on another `device` the same but for rounding. Raises
    UsageError when `out` is taken, NoEffectError when the members cancel.
    """
    check_free(out, overwrite=overwrite)
    started = time.perf_counter()
    with staged_folder(out, overwrite=overwrite) as stage:
        with closing(MergedWeights(stage / WEIGHTS_FILE, plan)) as weights:
            done = []
            for step, stored, result in _results(members, plan, device):
                weights.add(step.module, stored.A, stored.B)
                done.append(result)
                if on_step:
                    on_step(step)
            _check_effect(done, plan)
            weights.finish()
        name = out.absolute().name
        write_descriptions(stage, weights.ranks, members=members, plan=plan, name=name)
    return Merged(
        folder=out,
        rank=max(result.rank for result in done),
        relative_error=_ratio([result.squares for result in done]),
        seconds=time.perf_counter() - started,
        per_module=tuple(
            ModuleResult(module=r.module, rank=r.rank, relative_error=_ratio([r.squares]))
            for r in done
        ),
    )


def _results(
    members: Sequence[Member], plan: Plan, device: str
) -> Iterator[tuple[Step, Affine, _Done]]:
    combine: Combine = load_target(plan.strategy.target)

    def one(step: Step, patches: Sequence[Affine]) -> tuple[Step, Affine, _Done]:
        weights = [part.weight for part in step.parts]
        deltas = Deltas([_moved(patch, device) for patch in patches])
        stored = _stored(combine(deltas, weights, rank=plan.limit, **plan.options), step, plan)
        return step, stored, _judged(step, deltas, weights, stored)

    with ExitStack() as files:
        streams = [
            files.enter_context(open_patches(member, only=plan.modules(index)))
            for index, member in enumerate(members)
        ]
        # Files are read in the plan's order, by one thread.
        read = ((step, [streams[p.member].take(step.module) for p in step.parts])
                for step in plan.steps)  # fmt: skip
        if device == "cpu":
            yield from itertools.starmap(one, read)
        else:
            yield from _ahead(one, read)


def _ahead(
    one: Callable[[Step, Sequence[Affine]], tuple[Step, Affine, _Done]],
    read: Iterator[tuple[Step, Sequence[Affine]]],
) -> Iterator[tuple[Step, Affine, _Done]]:
    """Several modules at once, answered in order: a GPU is asked faster than one thread asks."""
    waiting: deque[Future[tuple[Step, Affine, _Done]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for step, patches in read:
            waiting.append(pool.submit(one, step, patches))
            if len(waiting) > 2 * _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _moved(patch: Affine, device: str) -> Affine:
    return patch if device == "cpu" else replace(patch, A=patch.A.to(device), B=patch.B.to(device))


def _judged(step: Step, deltas: Deltas, weights: Sequence[float], stored: Affine) -> _Done:
    squares = closeness(deltas, weights, stored)
    if not math.isfinite(squares.stored):
        raise MismatchError(
            f"the sum at {step.module} does not fit {str(stored.A.dtype).removeprefix('torch.')}",
            hint="look for an adapter with infinite values (`adapterhub verify`) or lower the "
            "weights",
        )
    return _Done(module=step.module, rank=stored.rank, squares=squares)


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
    return Affine(A=A.contiguous(), B=B.contiguous())


def _check_effect(done: Sequence[_Done], plan: Plan) -> None:
    left = math.sqrt(sum(result.squares.exact for result in done))
    if left <= NOTHING * math.sqrt(sum(result.squares.parts for result in done)):
        names = " and ".join(term.ref for term in plan.terms)
        raise NoEffectError(
            f"{names} cancel each other: nothing is left of their sum",
            hint="change the weights, or check that they are not the same adapter",
        )


def _ratio(squares: Sequence[Squares]) -> float:
    exact = sum(module.exact for module in squares)
    return math.sqrt(sum(module.error for module in squares) / exact) if exact else 0.0
