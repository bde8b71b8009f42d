"""Strategies that drop entries of each delta before they add up: TIES, DARE, DELLA and the like.

They are defined on dense deltas: some rows of each at a time are formed and combined as the paper
says, and the one dense result is brought back to two thin factors by the best approximation of the
wanted rank. Weights multiply the deltas before signs are compared. What is random depends on the
seed and on each delta alone, never on how many there are or in which order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine, Deltas
from adapterhub.errors import UsageError
from adapterhub_plugins.strategies import masks
from adapterhub_plugins.strategies.consensus import agreed, total
from adapterhub_plugins.strategies.cores import cut
from adapterhub_plugins.strategies.dense import Delta
from adapterhub_plugins.strategies.factors import check_patches, working_dtype
from adapterhub_plugins.strategies.truncate import check_rank, truncated

if TYPE_CHECKING:
    from torch import Generator, Tensor

    # Of one delta, to what becomes of some of its rows.
    Sparsify = Callable[[Delta, Callable[[], Generator]], Callable[[Tensor], Tensor]]


# Directions of the exact sum below this part of its largest are rounding.
_NOTHING = 1e-6


def ties(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.2,
    keep: float | None = None,
) -> Affine:
    """Trim to the largest entries, elect a sign, and take the mean of what agrees with it
    (arXiv 2306.01708)."""
    return _combined(
        patches,
        weights,
        lambda delta, _: masks.largest(delta, density).of,
        density=density,
        signs=True,
        rank=rank,
        keep=keep,
    )


def magnitude_prune(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.2,
    keep: float | None = None,
) -> Affine:
    """The sum of each delta's largest entries."""
    return _combined(
        patches,
        weights,
        lambda delta, _: masks.largest(delta, density).of,
        density=density,
        signs=False,
        rank=rank,
        keep=keep,
    )


def breadcrumbs(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.9,
    outliers: float = 0.01,
    keep: float | None = None,
) -> Affine:
    """The sum of what is neither among the largest `outliers` nor among the small ones
    (arXiv 2312.06795)."""
    if not 0 <= outliers < 1:
        raise UsageError(f"outliers {outliers:g} are no share", hint="0.01 is usual")
    return _combined(
        patches,
        weights,
        lambda delta, _: masks.middle(delta, density, outliers=outliers).of,
        density=density,
        signs=False,
        rank=rank,
        keep=keep,
    )


def dare_linear(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.5,
    seed: int = 0,
    keep: float | None = None,
) -> Affine:
    """Drop entries by chance, scale the others up, and add (arXiv 2311.03099)."""
    return _combined(
        patches,
        weights,
        lambda _, draw: partial(masks.dropped, density=density, draw=draw()),
        density=density,
        signs=False,
        rank=rank,
        keep=keep,
        seed=seed,
    )


def dare_ties(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.5,
    seed: int = 0,
    keep: float | None = None,
) -> Affine:
    """As `dare_linear`, with the signs of `ties`."""
    return _combined(
        patches,
        weights,
        lambda _, draw: partial(masks.dropped, density=density, draw=draw()),
        density=density,
        signs=True,
        rank=rank,
        keep=keep,
        seed=seed,
    )


def della(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.5,
    spread: float = 0.2,
    seed: int = 0,
    keep: float | None = None,
) -> Affine:
    """As `dare_ties`, where larger entries are dropped less often (arXiv 2406.11617)."""
    if not 0 <= spread <= 1:
        raise UsageError(f"spread {spread:g} is no share", hint="0.2 is usual")
    return _combined(
        patches,
        weights,
        lambda _, draw: partial(masks.dropped_by_size, density=density, draw=draw(), spread=spread),
        density=density,
        signs=True,
        rank=rank,
        keep=keep,
        seed=seed,
    )


def _combined(
    patches: Sequence[Affine],
    weights: Sequence[float],
    sparsify: Sparsify,
    *,
    density: float,
    signs: bool,
    rank: int | None,
    keep: float | None,
    seed: int = 0,
) -> Affine:
    import torch

    check_patches(patches, weights)
    check_rank(rank, keep)
    masks.check_density(density)
    dtype = working_dtype(patches)
    pairs = zip(patches, weights, strict=True)
    deltas = [Delta(patch, weight, dtype=dtype) for patch, weight in pairs]
    draws = [partial(_generator, seed, patch) for patch in patches]
    kept = [sparsify(delta, draw) for delta, draw in zip(deltas, draws, strict=True)]
    merge = agreed if signs else total
    merged = torch.empty(deltas[0].shape, dtype=dtype, device=patches[0].A.device)
    done = 0
    for blocks in zip(*(delta.blocks() for delta in deltas), strict=True):
        rows = [of(block) for of, block in zip(kept, blocks, strict=True)]
        merged[done : done + len(rows[0])] = merge(rows)
        done += len(rows[0])
    wanted = max(patch.rank for patch in patches) if rank is None else rank
    exact = cut(Deltas.of(patches), weights, lambda S: int((_NOTHING * S[0] < S).sum()))
    return truncated(merged, rank=wanted, keep=keep, seed=seed, start=exact.B)


def _generator(seed: int, patch: Affine) -> Generator:
    """A generator of this delta's own, so that neither order nor company decides what it drops."""
    import torch

    hasher = hashlib.sha256(str(seed).encode())
    for part in (patch.A, patch.B):
        hasher.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    number = int.from_bytes(hasher.digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)
