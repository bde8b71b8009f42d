"""Which entries of a delta survive: by size, by chance, or by both.

The others are set to zero. Sizes are compared over a whole delta, of which some rows are seen at a
time; it has never seen a second adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Blocks = Callable[[], Iterator[Tensor]]

_MANY, _SAMPLE = 1 << 18, 1 << 16


def check_density(density: float) -> None:
    """Raises UsageError for what is no share of a delta's entries."""
    if not 0 < density <= 1:
        raise UsageError(
            f"density {density:g} is no share of the entries", hint="give a part of 1: 0.2"
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """The magnitudes that survive: from `low`, and below `high`."""

    low: float
    high: float = math.inf

    def of(self, block: Tensor) -> Tensor:
        """The block with the others set to zero."""
        import torch

        # A shrink keeps what exceeds its threshold, at twenty times the speed of a mask.
        below = torch.nextafter(block.new_tensor(self.low), block.new_tensor(0.0))
        kept = torch.nn.functional.hardshrink(block, float(below))
        if self.high < math.inf:
            kept.masked_fill_(block.abs() >= self.high, 0.0)
        return kept


def largest(blocks: Blocks, entries: int, density: float) -> Sizes:
    """The `density` largest of all entries (TIES, arXiv 2306.01708)."""
    return _between(blocks, entries, density, skipped=0.0)


def middle(blocks: Blocks, entries: int, density: float, *, outliers: float) -> Sizes:
    """As many, after the `outliers` largest, which are left out too (Model Breadcrumbs,
    arXiv 2312.06795)."""
    return _between(blocks, entries, density, skipped=min(outliers, 1.0 - density))


def largest_of(matrix: Tensor, density: float) -> Tensor:
    """A small matrix with its `density` largest entries."""
    return largest(lambda: iter([matrix]), matrix.numel(), density).of(matrix)


def dropped(block: Tensor, density: float, draw: Generator) -> Tensor:
    """Each entry with probability `density`, scaled up so that the mean stays (DARE,
    arXiv 2311.03099)."""
    import torch

    kept = torch.rand(block.shape, generator=draw) < density
    return block * kept.to(block) / density


def dropped_by_size(block: Tensor, density: float, draw: Generator, *, spread: float) -> Tensor:
    """As `dropped`, with a probability that grows linearly with an entry's rank in its row, from
    density - spread/2 to density + spread/2 (MAGPRUNE of DELLA, arXiv 2406.11617)."""
    import torch

    columns = block.shape[1]
    ranks = block.abs().argsort(dim=1).argsort(dim=1).to(block.dtype)
    half = min(spread / 2, density, 1.0 - density)
    place = ranks / max(1, columns - 1) - 0.5
    keep = (density + 2 * half * place).clamp(min=1e-6, max=1.0)
    return torch.where(torch.rand(block.shape, generator=draw).to(block) < keep, block / keep, 0.0)


def _between(blocks: Blocks, entries: int, density: float, *, skipped: float) -> Sizes:
    """Entries whose rank by magnitude lies in [skipped, skipped + density) of all."""
    ahead, kept = round(skipped * entries), max(1, round(density * entries))
    if kept >= entries:
        return Sizes(low=0.0)
    # A threshold, and not indices: ties at it are all kept, whatever the order of the entries.
    low = _nth_largest(blocks, entries, min(ahead + kept, entries))
    return Sizes(low, _nth_largest(blocks, entries, ahead) if ahead else math.inf)


def _nth_largest(blocks: Blocks, entries: int, n: int) -> float:
    """The n-th largest magnitude, n from 1.

    Of many entries a sample says between which two it lies, and only those between are sorted.
    """
    import torch

    if entries >= _MANY:
        # Odd, and elsewhere in each block, so that no few columns stand for all.
        stride = entries // _SAMPLE | 1
        taken = [block.flatten()[i % stride :: stride] for i, block in enumerate(blocks())]
        sample = torch.cat(taken).abs_()
        sample = sample.sort(descending=True).values
        place, slack = n / entries * len(sample), 6 * math.sqrt(len(sample))
        high = sample[max(0, int(place - slack))]
        low = sample[min(len(sample) - 1, int(place + slack))]
        above, found = 0, []
        for block in blocks():
            size = block.abs()
            above += int(torch.count_nonzero(size > high))
            found.append(size[(size <= high) & (size >= low)])
        between = torch.cat(found)
        if 1 <= n - above <= len(between) < entries:
            return _nth_largest(lambda: iter([between]), len(between), n - above)
    size = torch.cat([block.flatten() for block in blocks()]).abs_()
    # A sort, because kthvalue takes ten times as long on a CPU.
    return float(size.sort(descending=True).values[n - 1])
