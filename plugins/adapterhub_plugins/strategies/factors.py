"""What the strategies share: low-rank deltas that fit together, and their factors side by side.

Works on one site's factors; it has never seen a file, a model or an adapter's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine, Deltas
from adapterhub.errors import CapabilityError, MismatchError, UsageError

if TYPE_CHECKING:
    import torch


def stacked(patches: Sequence[Affine], weights: Sequence[float], *, dtype: torch.dtype) -> Affine:
    """Exactly sum_i weight_i * scaling_i * B_i A_i: A (sum of ranks, in), B (out, sum of ranks)."""
    import torch

    deltas = Deltas.of(patches)
    squares = torch.stack([gram.diagonal() for gram in deltas.grams])
    parts_A, parts_B = [], []
    # A's and B's root mean squares of the entries of each patch.
    for of, patch, weight in zip(
        torch.split(squares, deltas.ranks, dim=1), patches, weights, strict=True
    ):
        sizes = of.sum(dim=1)
        of_A = math.sqrt(float(sizes[0]) / max(1, patch.A.numel()))
        of_B = math.sqrt(float(sizes[1]) / max(1, patch.B.numel()))
        factor = weight * patch.scaling
        shift = _shift(of_A, of_B * abs(factor))
        parts_A.append(patch.A.to(dtype) * shift)
        parts_B.append(patch.B.to(dtype) * (factor / shift))
    return Affine(A=torch.cat(parts_A), B=torch.cat(parts_B, dim=1))


def _shift(size_A: float, size_B: float) -> float:
    """What makes the entries of A, and divided by it those of B, of about one size.

    A moves by a power of two only, so that its bits survive in bf16 and fp16, and small entries of
    a B stay clear of fp16's subnormals.
    """
    ratio = size_B / size_A if size_A else 0.0
    return 2.0 ** round(0.5 * math.log2(ratio)) if 0.0 < ratio < math.inf else 1.0


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
