"""Which entries of a delta survive: by size, by chance, or by both.

The others are set to zero. Sizes are compared over a whole delta, of which some rows are seen at a
time; it has never seen a second adapter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor

_MANY, _SAMPLE = 1 << 18, 1 << 16


class Entries(Protocol):
    """Those of a matrix, of which some rows are there at a time."""

    @property
    def entries(self) -> int: ...

    def blocks(self) -> Iterator[Tensor]:
        """All of them, every time the same, each block its receiver's to change."""

    def sample(self, count: int) -> Tensor:
        """So many of them (count,), drawn by chance, every time the same."""


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
        single = np.float32 if block.dtype == torch.float32 else np.float64
        below = np.nextafter(single(self.low), single(0.0))
        kept = torch.nn.functional.hardshrink(block, float(below))
        if self.high < math.inf:
            kept.masked_fill_(block.abs() >= self.high, 0.0)
        return kept


def largest(of: Entries, density: float) -> Sizes:
    """The `density` largest of all entries (TIES, arXiv 2306.01708)."""
    return _between(of, density, skipped=0.0)


def middle(of: Entries, density: float, *, outliers: float) -> Sizes:
    """As many, after the `outliers` largest, which are left out too (Model Breadcrumbs,
    arXiv 2312.06795)."""
    return _between(of, density, skipped=min(outliers, 1.0 - density))


def largest_of(matrix: Tensor, density: float) -> Tensor:
    """A matrix with its `density` largest entries."""
    return largest(Whole(matrix), density).of(matrix)


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


@dataclass(frozen=True, slots=True)
class Whole:
    """Entries that are all there."""

    matrix: Tensor

    @property
    def entries(self) -> int:
        return self.matrix.numel()

    def blocks(self) -> Iterator[Tensor]:
        yield self.matrix.clone()

    def sample(self, count: int) -> Tensor:
        import torch

        draw = torch.Generator().manual_seed(0)
        places = torch.randint(self.entries, (count,), generator=draw)
        taken: Tensor = self.matrix.flatten()[places.to(self.matrix.device)]
        return taken


def _between(of: Entries, density: float, *, skipped: float) -> Sizes:
    """Entries whose rank by magnitude lies in [skipped, skipped + density) of all."""
    ahead, kept = round(skipped * of.entries), max(1, round(density * of.entries))
    if kept >= of.entries:
        return Sizes(low=0.0)
    # A threshold, and not indices: ties at it are all kept, whatever the order of the entries.
    low = _nth_largest(of, min(ahead + kept, of.entries))
    return Sizes(low, _nth_largest(of, ahead) if ahead else math.inf)


def _nth_largest(of: Entries, n: int) -> float:
    """The n-th largest magnitude, n from 1.

    Of many entries a sample says between which two it lies, and only those between are looked at.
    """
    import torch

    if of.entries >= _MANY:
        sample = of.sample(_SAMPLE).abs_().sort(descending=True).values
        share = n / of.entries
        # Six standard deviations of how many of the sample are larger.
        slack = 1 + 6 * math.sqrt(share * (1.0 - share) * len(sample))
        ends = max(0, int(share * len(sample) - slack)), int(share * len(sample) + slack)
        high, low = sample[[ends[0], min(len(sample) - 1, ends[1])]].tolist()
        above, found = 0, []
        for block in of.blocks():
            more, between = _parted(block.abs_(), low, high)
            above += more
            found.append(between)
        if 1 <= n - above <= sum(map(len, found)):
            return _nth(torch.cat(found), n - above)
    return _nth(torch.cat([block.flatten() for block in of.blocks()]).abs_(), n)


def _nth(sizes: Tensor, n: int) -> float:
    """The n-th largest of what is all there."""
    if sizes.device.type != "cpu":
        return float(sizes.sort(descending=True).values[n - 1])
    # By a partition, because kthvalue takes ten times as long on a CPU.
    place = len(sizes) - n
    return float(np.partition(sizes.numpy(), place)[place])


def _parted(sizes: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """How many are above `high`, and those from `low` to it."""
    import torch

    if sizes.device.type != "cpu":
        over = sizes > high
        return int(over.sum()), sizes[(sizes >= low) & ~over]
    # NumPy compares and picks several times as fast as torch does on a CPU.
    plain = sizes.numpy()
    above = plain > high
    between = plain >= low
    between ^= above
    return int(np.count_nonzero(above)), torch.from_numpy(plain[between])
