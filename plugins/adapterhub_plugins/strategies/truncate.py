"""The best low-rank approximation of a dense matrix, as two thin factors.

Knows matrices only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine
from adapterhub.errors import UsageError
from adapterhub_plugins.strategies.cholesky import gram_of, orthonormal

if TYPE_CHECKING:
    from torch import Tensor

# Up to this many rows or columns a full decomposition is as quick as a sketch.
_FULL_UP_TO = 256
_OVERSAMPLING, _POWERS = 16, 6
# Of them, so many are random whatever the start, in case it misses what matters.
_CHANCE = 8
# The part of the squared error that a power iteration must take off for the next one to be worth
# it: a percent of the error itself.
_WORTHWHILE = 0.02
_ROUNDING = 1e-7


def truncated(
    matrix: Tensor,
    *,
    rank: int,
    keep: float | None = None,
    seed: int = 0,
    start: Tensor | None = None,
) -> Affine:
    """matrix (out, in) at `rank`, or at the rank that keeps `keep` of its squared norm, A and B
    each with the square roots of the singular values.

    By a randomized range finder with power iterations (Halko, Martinsson and Tropp, 2011), which
    comes within a percent of the smallest error on any spectrum that a task vector has. `start`
    (out, k), the most important first, is what the columns are near to, such as those of the sum
    that TIES made the matrix of; from there fewer iterations are needed than from chance.
    """

    limit = min(matrix.shape)
    wanted = limit if keep is not None and min(matrix.shape) <= _FULL_UP_TO else min(rank, limit)
    U, S, Vh = _leading(matrix, wanted, seed, start)
    if keep is not None:
        mass = float(matrix.double().square().sum())
        while wanted < limit and float(S.double().square().sum()) < keep * mass:
            wanted = min(2 * wanted, limit)
            U, S, Vh = _leading(matrix, wanted, seed, start)
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


def _leading(
    matrix: Tensor, rank: int, seed: int, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` largest singular triplets: U (out, rank), S (rank,), Vh (rank, in)."""
    import torch

    width = rank + _OVERSAMPLING
    if min(matrix.shape) <= max(_FULL_UP_TO, width):
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        return U[:, :rank], S[:rank], Vh[:rank]
    known = matrix.new_empty(len(matrix), 0) if start is None else start[:, : width - _CHANCE]
    draw = torch.Generator(device="cpu").manual_seed(seed)
    chance = torch.randn(len(matrix), width - known.shape[1], generator=draw, dtype=matrix.dtype)
    Q = orthonormal(torch.cat([known.to(matrix), chance.to(matrix)], dim=1))
    mass, caught = float(torch.linalg.vector_norm(matrix)) ** 2, 0.0
    for _ in range(_POWERS):
        reached = matrix.mT @ Q
        S, W = _squared_core(reached)
        more, caught = float(S[:rank].sum()) - caught, float(S[:rank].sum())
        if more <= _WORTHWHILE * (mass - caught):
            break
        Q = orthonormal(matrix @ orthonormal(reached))
    else:
        reached = matrix.mT @ Q
        S, W = _squared_core(reached)
    # Q Q^T M = (Q W) (M^T Q W)^T, where the columns of M^T Q W are orthogonal, of lengths S^1/2.
    S, turn = S[:rank].sqrt(), W[:, :rank]
    inverse = torch.where(_ROUNDING * S[0] < S, 1.0 / S, 0.0)
    turn, thin = (part.to(matrix) for part in (turn, turn * inverse))
    return Q @ turn, S.to(matrix), (reached @ thin).mT


def _squared_core(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values, largest first, and right singular vectors: float64, on the CPU."""
    import torch

    values, vectors = torch.linalg.eigh(gram_of(columns))
    return values.flip(0).clamp(min=0.0), vectors.flip(1)
