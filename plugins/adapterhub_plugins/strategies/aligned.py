"""Strategies that compare adapters in coordinates that they share, without a dense delta.

Directions of different adapters are rarely the same entries of a matrix; in a common basis they
become so, and TIES then compares like with like. Results are exact in the span of what came in, so
the default rank is that of the whole span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine
from adapterhub_plugins.strategies.combine import svd
from adapterhub_plugins.strategies.consensus import agreed
from adapterhub_plugins.strategies.factors import check_patches, stacked, working_dtype
from adapterhub_plugins.strategies.masks import check_density, largest_of
from adapterhub_plugins.strategies.truncate import check_rank

if TYPE_CHECKING:
    from torch import Tensor

# Directions below this part of the largest are rounding.
_NOTHING = 1e-10


def knots(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.2,
    keep: float | None = None,
) -> Affine:
    """KnOTS-TIES (Stoica et al., ICLR 2025, arXiv 2410.19735): [D_1 ... D_n] = U S [V_1 ... V_n]^T,
    TIES on the V_i, and U S back on.

    The SVD of the deltas side by side is that of a core of the summed rank.
    """
    import torch

    _check(patches, weights, density, rank, keep)
    Q, R = torch.linalg.qr(torch.cat([_outgoing(patch) for patch in patches], dim=1))
    ends = torch.tensor([patch.rank for patch in patches]).cumsum(0).tolist()
    cores = [R[:, end - p.rank : end] for end, p in zip(ends, patches, strict=True)]
    halves = [torch.linalg.qr(patch.A.double().mT) for patch in patches]
    # D_i = Q cores_i A_i with A_i = R_i^T Q_i^T: all that is not orthonormal is in the core.
    whole = torch.cat([c @ R_in.mT for c, (_, R_in) in zip(cores, halves, strict=True)], dim=1)
    U, S, _ = torch.linalg.svd(whole, full_matrices=False)
    used = _NOTHING * S[0] < S
    if not used.any():  # nothing but untrained adapters
        return stacked(patches, weights, dtype=working_dtype(patches))
    U, S = U[:, used], S[used]
    own = [
        weight * largest_of((U.mT / S[:, None]) @ core @ patch.A.double(), density)
        for weight, core, patch in zip(weights, cores, patches, strict=True)
    ]
    merged = Affine(A=agreed(own), B=Q @ U * S)
    return _limited(merged, patches, rank=rank, keep=keep)


def core_space(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    density: float = 0.2,
    keep: float | None = None,
) -> Affine:
    """TIES on the small cores M_i in D_i = U_B M_i V_A^T, where U_B and V_A span what all adapters
    write and read (Core Space, arXiv 2509.17786)."""
    import torch

    _check(patches, weights, density, rank, keep)
    U_B = _span(torch.cat([_outgoing(patch) for patch in patches], dim=1))
    if not U_B.shape[1]:
        return stacked(patches, weights, dtype=working_dtype(patches))
    V_A = _span(torch.cat([patch.A.double() for patch in patches]).mT)
    cores = [
        weight * largest_of(U_B.mT @ _outgoing(patch) @ (patch.A.double() @ V_A), density)
        for patch, weight in zip(patches, weights, strict=True)
    ]
    merged = Affine(A=agreed(cores) @ V_A.mT, B=U_B)
    return _limited(merged, patches, rank=rank, keep=keep)


def _outgoing(patch: Affine) -> Tensor:
    """B (out, rank) in float64, with the scaling."""
    scaled: Tensor = patch.scaling * patch.B.double()
    return scaled


def _span(columns: Tensor) -> Tensor:
    """Orthonormal columns in order of how much of `columns` they hold, signs made definite."""
    import torch

    U, S, _ = torch.linalg.svd(columns, full_matrices=False)
    spanned: Tensor = U[:, _NOTHING * S[0] < S]
    return spanned


def _limited(
    merged: Affine, patches: Sequence[Affine], *, rank: int | None, keep: float | None
) -> Affine:
    if rank is not None or keep is not None:
        merged = svd([merged], [1.0], rank=rank, keep=keep)
    dtype = working_dtype(patches)
    return Affine(A=merged.A.to(dtype), B=merged.B.to(dtype))


def _check(
    patches: Sequence[Affine],
    weights: Sequence[float],
    density: float,
    rank: int | None,
    keep: float | None,
) -> None:
    check_patches(patches, weights)
    check_rank(rank, keep)
    check_density(density)
