"""Cut a weighted sum of low-rank deltas to its largest singular values, without forming it.

Knows the factors of one module only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine, Deltas
from adapterhub_plugins.strategies.cholesky import half

if TYPE_CHECKING:
    from torch import Tensor

# From this least eigenvalue of the Grams on, float32 loses no more in the last product than storing
# its result in float32 does.
_NEAR_ORTHOGONAL = 1e-3


def cut(deltas: Deltas, weights: Sequence[float], kept: Callable[[Tensor], int]) -> Affine:
    """The best approximation of the weighted sum B A that has as many singular values as `kept`
    says of all n of them, each factor with their square roots, in float32 if all of them are.

    B = Q_B H_B and A^T = Q_A H_A with Q orthonormal, so the singular values of B A are those of the
    core H_B H_A^T. The halves H come from the Grams of the factors (CholeskyQR), several times as
    fast as a QR and as good where those are well conditioned, otherwise from Householder's QR,
    which holds for duplicated and dependent columns too.
    """
    import torch

    on_A, on_B = deltas.grams
    factors = deltas.factors(weights)
    # A processor decomposes a small matrix in less time than a GPU needs to begin.
    of_A, of_B = half(on_A), half(on_B * factors * factors[:, None])
    if of_A is None or of_B is None:
        columns = deltas.writes * factors.to(deltas.writes.device)[:, None]
        return _cut_by_qr(columns.mT, deltas.reads, kept)
    (half_A, inverse_A, least_A), (half_B, inverse_B, least_B) = of_A, of_B
    U, S, Vh = torch.linalg.svd(half_B @ half_A.mT)
    count = kept(S)
    root = S[:count].sqrt()
    left = factors[:, None] * (inverse_B @ (U[:, :count] * root))
    right = inverse_A @ (Vh[:count].mT * root)
    if _single(deltas) and min(least_A, least_B) > _NEAR_ORTHOGONAL:
        A, B = torch.cat([p.A for p in deltas]), torch.cat([p.B for p in deltas], dim=1)
        return Affine(A=right.mT.float() @ A, B=B @ left.float())
    # In one transfer to where the factors are.
    left, right = torch.stack([left, right]).to(deltas.reads.device)
    return Affine(A=right.mT @ deltas.reads, B=(left.mT @ deltas.writes).mT)


def _single(deltas: Deltas) -> bool:
    """Whether all is float32 on a CPU; a GPU takes next to no longer for float64."""
    import torch

    parts = [part for patch in deltas for part in (patch.A, patch.B)]
    return all(part.dtype == torch.float32 and part.device.type == "cpu" for part in parts)


def _cut_by_qr(B: Tensor, A: Tensor, kept: Callable[[Tensor], int]) -> Affine:
    import torch

    Q_B, R_B = torch.linalg.qr(B)
    Q_A, R_A = torch.linalg.qr(A.mT)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.mT, full_matrices=False)
    count = kept(S)
    root = S[:count].sqrt()
    return Affine(A=(root[:, None] * Vh[:count]) @ Q_A.mT, B=Q_B @ (U[:, :count] * root))
