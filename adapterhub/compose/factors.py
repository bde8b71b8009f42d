"""Exact arithmetic on sums of low-rank deltas, through their factors alone.

Everything is float64 and nothing is ever dense: a delta of 3072 x 3072 costs two skinny products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from adapterhub.domain.patch import Affine

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-7  # singular values below this part of the largest span nothing


@dataclass(frozen=True, slots=True)
class Factors:
    """The delta B A: A (rank, in), B (out, rank), both float64, scaling and weight folded in."""

    A: Tensor
    B: Tensor

    def norm_squared(self) -> float:
        """||B A||_F^2, good to about 1e-16 of the parts' own norms."""
        return max(0.0, self.inner(self))

    def inner(self, other: Factors) -> float:
        """<B A, B' A'> = sum (B^T B') * (A A'^T)."""
        return float(((self.B.mT @ other.B) * (self.A @ other.A.mT)).sum())

    def singular_values(self) -> Tensor:
        """Those of B A, largest first."""
        R_out = torch.linalg.qr(self.B, mode="r").R
        R_in = torch.linalg.qr(self.A.mT, mode="r").R
        values: Tensor = torch.linalg.svdvals(R_out @ R_in.mT)
        return values

    def spans(self) -> tuple[Tensor, Tensor]:
        """Orthonormal columns that span what B A writes (out, k) and what it reads (in, k)."""
        U, _, V = self.decomposed()
        return U, V

    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (out, k), S (rank,), V (in, k) of B A = U S V^T, where k counts what is no rounding."""
        Q_out, R_out = torch.linalg.qr(self.B)
        Q_in, R_in = torch.linalg.qr(self.A.mT)
        U, S, Vh = torch.linalg.svd(R_out @ R_in.mT, full_matrices=False)
        k = int((S / S[0] > _ROUNDING).sum())  # none for a delta of zero: this is not a number
        return Q_out @ U[:, :k], S, Q_in @ Vh[:k].mT


def factors(patch: Affine, *, weight: float = 1.0) -> Factors:
    """weight * scaling * B A."""
    return Factors(patch.A.double(), patch.B.double() * (weight * patch.scaling))


def total(parts: Sequence[Factors]) -> Factors:
    """The sum of deltas, its rank the sum of theirs."""
    return Factors(torch.cat([p.A for p in parts]), torch.cat([p.B for p in parts], dim=1))


def difference(one: Factors, other: Factors) -> Factors:
    return total([one, Factors(other.A, -other.B)])
