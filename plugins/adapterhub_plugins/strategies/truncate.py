"""The best low-rank approximation of a dense matrix, as two thin factors.

Knows matrices only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine
from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

# Up to this many rows or columns a full decomposition is as quick as a sketch.
_FULL_UP_TO = 256
_OVERSAMPLING, _POWERS = 16, 4


def truncated(matrix: Tensor, *, rank: int, keep: float | None = None, seed: int = 0) -> Affine:
    """matrix (out, in) at `rank`, or at the rank that keeps `keep` of its squared norm, A and B
    each with the square roots of the singular values.

    By a randomized range finder with power iterations (Halko, Martinsson and Tropp, 2011), which
    comes within a percent of the smallest error on any spectrum that a task vector has.
    """

    limit = min(matrix.shape)
    wanted = limit if keep is not None and min(matrix.shape) <= _FULL_UP_TO else min(rank, limit)
    U, S, Vh = _leading(matrix, wanted, seed)
    if keep is not None:
        mass = float(matrix.double().square().sum())
        while wanted < limit and float(S.double().square().sum()) < keep * mass:
            wanted = min(2 * wanted, limit)
            U, S, Vh = _leading(matrix, wanted, seed)
        wanted = kept_rank(S, keep, mass=mass)
    root = S[:wanted].sqrt()
    return Affine(A=(root[:, None] * Vh[:wanted]).contiguous(), B=U[:, :wanted] * root)


def kept_rank(singular_values: Tensor, keep: float, *, mass: float | None = None) -> int:
    """The smallest rank whose squared singular values are `keep` of all of them, at least 1.

    `mass` is their whole sum, where not all are given.
    """
    squares = singular_values.double().square()
    whole = float(squares.sum()) if mass is None else mass
    enough = (squares.cumsum(0) >= keep * whole * (1 - 1e-12)).nonzero()
    return int(enough[0]) + 1 if len(enough) else len(squares)


def check_rank(rank: int | None, keep: float | None) -> None:
    """Raises UsageError for a rank or a share that leaves nothing, or for both at once."""
    if rank is not None and keep is not None:
        raise UsageError("a rank and a share to keep are two answers", hint="give one of them")
    if rank is not None and rank < 1:
        raise UsageError(f"rank {rank} leaves nothing", hint="give a rank of at least 1")
    if keep is not None and not 0 < keep <= 1:
        raise UsageError(
            f"keep {keep:g} is no share", hint="give a part of the explained variance: 0.99"
        )


def _leading(matrix: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` largest singular triplets: U (out, rank), S (rank,), Vh (rank, in)."""
    import torch

    width = rank + _OVERSAMPLING
    if min(matrix.shape) <= max(_FULL_UP_TO, width):
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        return U[:, :rank], S[:rank], Vh[:rank]
    draw = torch.Generator(device="cpu").manual_seed(seed)
    probe = torch.randn(matrix.shape[1], width, generator=draw, dtype=matrix.dtype)
    Q, _ = torch.linalg.qr(matrix @ probe.to(matrix.device))
    for _ in range(_POWERS):
        Q, _ = torch.linalg.qr(matrix.mT @ Q)
        Q, _ = torch.linalg.qr(matrix @ Q)
    U, S, Vh = torch.linalg.svd(Q.mT @ matrix, full_matrices=False)
    return Q @ U[:, :rank], S[:rank], Vh[:rank]
