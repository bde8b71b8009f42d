"""What the strategies share: low-rank deltas that fit together, and their factors side by side.

Works on one site's factors; it has never seen a file, a model or an adapter's name.
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


def stacked(patches: Sequence[Affine], weights: Sequence[float], *, dtype: torch.dtype) -> Affine:
    """Exactly sum_i weight_i * scaling_i * B_i A_i: A (sum of ranks, in), B (out, sum of ranks)."""
    import torch

    first, ranks = patches[0], [patch.rank for patch in patches]
    A = torch.empty(sum(ranks), first.A.shape[1], dtype=dtype, device=first.A.device)
    B = torch.empty(len(first.B), sum(ranks), dtype=dtype, device=first.B.device)
    parts = list(zip(torch.split(A, ranks), torch.split(B, ranks, dim=1), strict=True))
    for (own_A, own_B), patch in zip(parts, patches, strict=True):
        own_A.copy_(patch.A)
        own_B.copy_(patch.B)
    # Of all of them at once: a GPU is waited for each time that a number is read from it.
    sizes = torch.stack([torch.stack([_rms(own) for own in pair]) for pair in parts]).tolist()
    for (own_A, own_B), (of_A, of_B), patch, weight in zip(
        parts, sizes, patches, weights, strict=True
    ):
        factor = weight * patch.scaling
        shift = _shift(of_A, of_B * abs(factor))
        own_A.mul_(shift)
        own_B.mul_(factor / shift)
    return Affine(A=A, B=B)


def _shift(size_A: float, size_B: float) -> float:
    """What makes the entries of A, and divided by it those of B, of about one size.

    A moves by a power of two only, so that its bits survive in bf16 and fp16, and small entries of
    a B stay clear of fp16's subnormals.
    """
    ratio = size_B / size_A if size_A else 0.0
    return 2.0 ** round(0.5 * math.log2(ratio)) if 0.0 < ratio < math.inf else 1.0


def _rms(matrix: Tensor) -> Tensor:
    import torch

    norm: Tensor = torch.linalg.vector_norm(matrix, dtype=torch.float64)
    return norm / math.sqrt(matrix.numel())


def working_dtype(patches: Sequence[Affine]) -> torch.dtype:
    """float32, or float64 if something came in float64."""
    import torch

    given = {part.dtype for patch in patches for part in (patch.A, patch.B)}
    return torch.float64 if torch.float64 in given else torch.float32


def check_patches(patches: Sequence[Affine], weights: Sequence[float]) -> None:
    """Raises UsageError, CapabilityError or MismatchError unless they can be added up."""
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
