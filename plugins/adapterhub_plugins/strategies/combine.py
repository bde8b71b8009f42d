"""The weighted sum of low-rank deltas, exactly or at a given rank.

Works on one site's factors and never forms a dense delta, nor pairs one adapter's A with another's
B. It has never seen a file, a model or an adapter's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine
from adapterhub.errors import CapabilityError, MismatchError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def linear(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Exactly sum_i weight_i * scaling_i * B_i A_i, as one pair of factors with scaling 1.

    A is stacked (sum of ranks, in), B set side by side (out, sum of ranks). Raises UsageError for a
    rank, because a sum has the rank it has.
    """
    if rank is not None:
        raise UsageError(
            "linear keeps every rank and cannot be limited to one",
            hint=f"--strategy svd --rank {rank} gives the best sum of that rank",
        )
    _check(patches, weights)
    return _stacked(patches, weights, dtype=_working_dtype(patches))


def svd(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """The best approximation of that sum at `rank` in Frobenius norm (Eckart and Young, 1936).

    QR of both stacked factors leaves a core of the summed rank, whose SVD is the delta's. Each side
    gets the square roots of the singular values. The default rank is the largest that came in; the
    result has fewer if the sum has. Computed in float64.
    """
    import torch

    _check(patches, weights)
    wanted = max(patch.rank for patch in patches) if rank is None else rank
    if wanted < 1:
        raise UsageError(f"rank {wanted} leaves nothing", hint="give a rank of at least 1")
    stacked = _stacked(patches, weights, dtype=torch.float64)
    # Householder QR holds for duplicated and rank-deficient factors too, where a Gram would not.
    Q_out, R_out = torch.linalg.qr(stacked.B)
    Q_in, R_in = torch.linalg.qr(stacked.A.mT)
    U, S, Vh = torch.linalg.svd(R_out @ R_in.mT, full_matrices=False)
    kept, root = min(wanted, len(S)), S.sqrt()
    B = Q_out @ (U[:, :kept] * root[:kept])
    A = (root[:kept, None] * Vh[:kept]) @ Q_in.mT
    dtype = _working_dtype(patches)
    return Affine(A=A.to(dtype), B=B.to(dtype))


def sequential(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Raises CapabilityError: what one adapter makes of another's work is no patch of the base."""
    raise CapabilityError(
        "sequential exists attached only: what feeds the next adapter is no sum of deltas",
        hint="write it down instead: adapterhub stack A B --strategy sequential",
    )


def _stacked(patches: Sequence[Affine], weights: Sequence[float], *, dtype: torch.dtype) -> Affine:
    import torch

    pairs = [
        _balanced(patch.A.to(dtype), patch.B.to(dtype), weight * patch.scaling)
        for patch, weight in zip(patches, weights, strict=True)
    ]
    return Affine(A=torch.cat([A for A, _ in pairs]), B=torch.cat([B for _, B in pairs], dim=1))


def _balanced(A: Tensor, B: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """(A', B') with B' A' = factor * B A and entries of about one size.

    A moves by a power of two only, so that its bits survive in bf16 and fp16, and small entries of
    a B stay clear of fp16's subnormals.
    """
    size_A, size_B = _rms(A), _rms(B) * abs(factor)
    ratio = size_B / size_A if size_A else 0.0
    shift = 2.0 ** round(0.5 * math.log2(ratio)) if 0.0 < ratio < math.inf else 1.0
    return A * shift, B * (factor / shift)


def _rms(matrix: Tensor) -> float:
    return float(matrix.double().square().mean().sqrt())


def _working_dtype(patches: Sequence[Affine]) -> torch.dtype:
    """float32, or float64 if something came in float64."""
    import torch

    given = {part.dtype for patch in patches for part in (patch.A, patch.B)}
    return torch.float64 if torch.float64 in given else torch.float32


def _check(patches: Sequence[Affine], weights: Sequence[float]) -> None:
    if not patches or len(patches) != len(weights):
        raise UsageError(
            f"{len(patches)} patches and {len(weights)} weights", hint="give each patch one weight"
        )
    for patch in patches:
        if not patch.low_rank_only or patch.A.ndim != 2:
            raise CapabilityError(
                f"a patch with {_extra(patch)} cannot be added up",
                hint="only linear low-rank deltas without bias or scales can; leave it out",
            )
    shapes = {(int(patch.B.shape[0]), int(patch.A.shape[1])) for patch in patches}
    if len(shapes) > 1:
        raise MismatchError(
            f"deltas of different shapes: {' and '.join(map(str, sorted(shapes)))}",
            hint="the adapters were not made for the same base",
        )


def _extra(patch: Affine) -> str:
    if patch.A is None:
        return "no low-rank part"
    parts = ("row_scale", "column_scale", "bias")
    return next((p for p in parts if getattr(patch, p) is not None), "a convolution's factors")
