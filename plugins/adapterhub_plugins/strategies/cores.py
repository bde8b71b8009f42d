"""Cut the product of two thin factors to its largest singular values, without forming it.

Knows two matrices only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine

if TYPE_CHECKING:
    from torch import Tensor

# The least eigenvalue of a Gram of columns of length 1 from which its square root is trusted: what
# is lost is eps / sqrt(this) of the factors' norms, 2e-12.
_WELL_CONDITIONED = 1e-8


def cut(B: Tensor, A: Tensor, kept: Callable[[Tensor], int]) -> Affine:
    """B (out, n), A (n, in), both float64: the best approximation of B A that has as many singular
    values as `kept` says of all n of them, each factor with their square roots.

    B = Q_B H_B and A^T = Q_A H_A with Q orthonormal, so the singular values of B A are those of the
    core H_B H_A^T. The halves H come from the Grams of the factors, four times as fast as a QR and
    as good where those are well conditioned, otherwise from Householder's QR, which holds for
    duplicated and dependent columns too.
    """
    import torch

    # A processor decomposes a small matrix in less time than a GPU needs to begin.
    of_B, of_A = _half((B.mT @ B).cpu()), _half((A @ A.mT).cpu())
    if of_B is None or of_A is None:
        return _cut_by_qr(B, A, kept)
    (half_B, inverse_B), (half_A, inverse_A) = of_B, of_A
    U, S, Vh = torch.linalg.svd(half_B @ half_A.mT)
    count = kept(S)
    root = S[:count].sqrt()
    left = inverse_B @ (U[:, :count] * root)
    right = (root[:, None] * Vh[:count]) @ inverse_A.mT
    return Affine(A=right.to(A.device) @ A, B=B @ left.to(B.device))


def _half(gram: Tensor) -> tuple[Tensor, Tensor] | None:
    """H and H^-1 with H^T H = gram; None where rounding would show.

    Columns are brought to length 1 first, so that a weak adapter beside a strong one is no
    ill condition.
    """
    import torch

    lengths = gram.diagonal().sqrt()
    if not bool((lengths > 0).all()):
        return None
    values, vectors = torch.linalg.eigh(gram / lengths[:, None] / lengths)
    if not float(values[0]) > _WELL_CONDITIONED:
        return None
    root = values.sqrt()
    return (vectors * root).mT * lengths, vectors / root / lengths[:, None]


def _cut_by_qr(B: Tensor, A: Tensor, kept: Callable[[Tensor], int]) -> Affine:
    import torch

    Q_B, R_B = torch.linalg.qr(B)
    Q_A, R_A = torch.linalg.qr(A.mT)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.mT, full_matrices=False)
    count = kept(S)
    root = S[:count].sqrt()
    return Affine(A=(root[:, None] * Vh[:count]) @ Q_A.mT, B=Q_B @ (U[:, :count] * root))
