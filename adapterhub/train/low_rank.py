"""The best approximation of a matrix by two thin factors, and how far it is from the matrix.

Knows matrices only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Above this, a full decomposition takes several times as long as that of the smaller Gram matrix;
# squared, what is below 1e-7 of the largest direction is rounding even in float64.
_FULL_UP_TO = 1024
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """A (rank, in) and B (out, rank) in float32, with the square roots of the singular values on
    both. `norm` is ||D|| and `error` ||D - B A|| of the factors as they are."""

    A: Tensor
    B: Tensor
    norm: float
    error: float


def factorize(difference: Tensor, rank: int) -> Factors:
    """Truncated SVD (Eckart-Young) of difference (out, in), which is not zero, in float64.

    The rank is smaller where the matrix has no more.
    """
    import torch

    D = difference.to(torch.float64)
    U, S, Vh = _decompose(D)
    kept = min(rank, int((_SMALLEST * S[0] < S).sum()))
    root = S[:kept].sqrt()
    A = (root[:, None] * Vh[:kept]).to(torch.float32).contiguous()
    B = (U[:, :kept] * root).to(torch.float32).contiguous()
    left = D - B.double() @ A.double()
    return Factors(A=A, B=B, norm=float(torch.linalg.norm(D)), error=float(torch.linalg.norm(left)))


def _decompose(D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, k), S (k,) from large to small, Vh (k, in)."""
    import torch

    if min(D.shape) <= _FULL_UP_TO:
        found: tuple[Tensor, Tensor, Tensor] = torch.linalg.svd(D, full_matrices=False)
        return found
    if D.shape[0] > D.shape[1]:
        U, S, Vh = _decompose(D.T)
        return Vh.T, S, U.T
    squares, U = torch.linalg.eigh(D @ D.T)
    U, S = U.flip(1), squares.flip(0).clamp(min=0).sqrt()
    # A direction of no length has no row of its own; it is never kept.
    return U, S, (U.T @ D) / S.clamp(min=_SMALLEST * S[0])[:, None]
