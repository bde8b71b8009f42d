"""Which entries of a delta survive: by size, by chance, or by both.

Each works on one dense delta (out, in) and returns it with the others set to zero. It has never
seen a second adapter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor

_MANY, _SAMPLE = 1 << 18, 1 << 16


def check_density(density: float) -> None:
    """Raises UsageError for what is no share of a delta's entries."""
    if not 0 < density <= 1:
        raise UsageError(
            f"density {density:g} is no share of the entries", hint="give a part of 1: 0.2"
        )


def largest(delta: Tensor, density: float) -> Tensor:
    """The `density` largest entries by magnitude (TIES, arXiv 2306.01708)."""
    return _between(delta, density, skipped=0.0)


def middle(delta: Tensor, density: float, *, outliers: float) -> Tensor:
    """As many, after the `outliers` largest, which are left out too (Model Breadcrumbs,
    arXiv 2312.06795)."""
    return _between(delta, density, skipped=min(outliers, 1.0 - density))


def dropped(delta: Tensor, density: float, draw: Generator) -> Tensor:
    """Each entry with probability `density`, scaled up so that the mean stays (DARE,
    arXiv 2311.03099)."""
    import torch

    kept = torch.rand(delta.shape, generator=draw) < density
    return delta * kept.to(delta) / density


def dropped_by_size(delta: Tensor, density: float, draw: Generator, *, spread: float) -> Tensor:
    """As `dropped`, with a probability that grows linearly with an entry's rank in its row, from
    density - spread/2 to density + spread/2 (MAGPRUNE of DELLA, arXiv 2406.11617)."""
    import torch

    columns = delta.shape[1]
    ranks = delta.abs().argsort(dim=1).argsort(dim=1).to(delta.dtype)
    half = min(spread / 2, density, 1.0 - density)
    place = ranks / max(1, columns - 1) - 0.5
    keep = (density + 2 * half * place).clamp(min=1e-6, max=1.0)
    return torch.where(torch.rand(delta.shape, generator=draw).to(delta) < keep, delta / keep, 0.0)


def _between(delta: Tensor, density: float, *, skipped: float) -> Tensor:
    """Entries whose rank by magnitude lies in [skipped, skipped + density) of all."""
    import torch

    count = delta.numel()
    ahead, kept = round(skipped * count), max(1, round(density * count))
    if kept >= count:
        return delta
    size = delta.abs().flatten()
    # A threshold, and not indices: ties at it are all kept, whatever the order of the entries.
    low = _nth_largest(size, min(ahead + kept, count))
    mask = size >= low
    if ahead:
        mask &= size < _nth_largest(size, ahead)
    return torch.where(mask.view_as(delta), delta, 0.0)


def _nth_largest(size: Tensor, n: int) -> Tensor:
    """The n-th largest of `size` (count,), n from 1.

    Of many, a sample says between which two it lies, and only those between are sorted.
    """
    import torch

    count = size.numel()
    if count >= _MANY:
        sample = size[:: count // _SAMPLE].sort(descending=True).values
        place, slack = n / count * len(sample), 4 * math.sqrt(len(sample))
        high = sample[max(0, int(place - slack))]
        low = sample[min(len(sample) - 1, int(place + slack))]
        between = size[(size <= high) & (size >= low)]
        left = n - int((size > high).sum())
        if 1 <= left <= len(between):
            return torch.kthvalue(between, len(between) - left + 1).values
    return torch.kthvalue(size, count - n + 1).values
