"""The nearest low-rank form of an adapter that rescales its base's weights, such as a DoRA.

Its delta g (W + s B A) - W has full rank: it is computed one layer at a time from the base's own
values, cut by a truncated SVD, and what that loses is said. Trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapterhub.compose.canonical import write_canonical
from adapterhub.compose.members import Member, read_state
from adapterhub.domain.match import record_of
from adapterhub.domain.patch import Affine, Patch
from adapterhub.domain.protocols import AdapterMethod
from adapterhub.errors import CapabilityError, NoEffectError, UsageError
from adapterhub.hub.staging import check_free
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.train.extract import MAX_RANK, Held
from adapterhub.train.low_rank import Factors, factorize

__all__ = ["Flattened", "flatten"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flattened:
    """What was written. `error` is ||D - B A|| / ||D|| over all layers, D the adapter's delta."""

    folder: Path
    rank: int
    held: tuple[Held, ...]
    error: float


def flatten(
    source: Member,
    base: Base,
    out: Path,
    *,
    rank: int,
    allowed: tuple[str, ...] = (),
    overwrite: bool = False,
    on_module: Callable[[int, int], None] = lambda done, total: None,
) -> Flattened:
    """Write a plain LoRA of rank `rank`, the nearest to what the adapter does to this base.

    `on_module` hears how many of how many layers are done. Raises CapabilityError for a patch that
    is no change of a linear layer's weight, NoEffectError where nothing is changed.
    """
    if not 1 <= rank <= MAX_RANK:
        raise UsageError(f"rank {rank} is out of range", hint=f"use 1 to {MAX_RANK}")
    check_free(out, overwrite=overwrite)
    method: AdapterMethod = load_target(catalog().methods[source.folder.manifest.method].target)()
    # Already read from the folder: a DoRA's patches are as many as its magnitudes.
    patches = list(method.patches(source.folder.config or {}, read_state(source), base))
    found: dict[str, Factors] = {}
    held = []
    for done, (module, patch) in enumerate(patches, start=1):
        factors, size = _cut(module, patch, base, rank)
        if factors is not None:
            found[module] = factors
            held.append(_held(module, factors, size))
        on_module(done, len(patches))
    if not found:
        raise NoEffectError(
            f"{source.ref} changes no layer of {base.spec.name}", hint="check that it was trained"
        )
    made = write_canonical(
        source,
        {module: (factors.A.cpu(), factors.B.cpu()) for module, factors in found.items()},
        out,
        base=record_of(base.spec),
        allowed=allowed,
        overwrite=overwrite,
    )
    error = math.sqrt(
        sum(factors.error**2 for factors in found.values())
        / sum(factors.norm**2 for factors in found.values())
    )
    return Flattened(folder=out, rank=made.rank, held=tuple(held), error=error)


def _cut(module: str, patch: Patch, base: Base, rank: int) -> tuple[Factors | None, float]:
    """The delta's factors, none where it is zero, and ||W||."""
    import torch

    site = base.sites("linear").get(module)
    scales = isinstance(patch, Affine) and patch.bias is None and patch.A is not None
    if site is None or not isinstance(patch, Affine) or not scales:
        raise CapabilityError(
            f"it has a {type(patch).__name__.lower()} at {module or 'the whole model'}, which is "
            "more than a change of a linear layer's weight",
            hint="use it as it is",
        )
    W = site.weight().double()
    changed = W + patch.scaling * (patch.B.to(W) @ patch.A.to(W))
    if patch.row_scale is not None:
        changed = patch.row_scale.to(W)[:, None] * changed
    if patch.column_scale is not None:
        changed = changed * patch.column_scale.to(W)
    difference = changed - W
    size = float(torch.linalg.norm(W))
    return (factorize(difference, rank) if difference.any() else None), size


def _held(module: str, factors: Factors, size: float) -> Held:
    return Held(
        module=module,
        rank=len(factors.A),
        change=factors.norm / size if size else None,
        error=factors.error / factors.norm,
    )
