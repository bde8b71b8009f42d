"""A low-rank delta's entries, some rows at a time: few enough to stay in a processor's cache.

The whole of it is never there, and making rows anew is cheaper than fetching them from memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ENTRIES = 1 << 18  # 1 MB of float32
_ON_A_DEVICE = 1 << 26  # where starting a kernel costs more than memory does


class Delta:
    """weight * scaling * B A, of shape (out, in)."""

    def __init__(self, patch: Affine, weight: float, *, dtype: torch.dtype) -> None:
        self._A, self._B = patch.A.to(dtype), patch.B.to(dtype) * (weight * patch.scaling)
        self.shape = (len(self._B), int(self._A.shape[1]))

    @property
    def entries(self) -> int:
        return self.shape[0] * self.shape[1]

    def blocks(self) -> Iterator[Tensor]:
        """(rows, in) each, all rows in order; every time the same bits."""
        at_once = _ENTRIES if self._B.device.type == "cpu" else _ON_A_DEVICE
        for rows in self._B.split(max(1, at_once // self.shape[1])):
            yield rows @ self._A

    def sample(self, count: int) -> Tensor:
        """(count,) entries drawn by chance, every time the same."""
        import torch

        draw = torch.Generator().manual_seed(0)
        rows, columns = (
            torch.randint(size, (count,), generator=draw).to(self._B.device) for size in self.shape
        )
        taken: Tensor = (self._B[rows] * self._A.mT[columns]).sum(dim=1)
        return taken
