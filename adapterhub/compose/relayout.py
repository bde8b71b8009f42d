"""The arithmetic of fusing and splitting: factors and scales by the rows of a fused layer.

Exact in both directions: a row of the layer's answer depends on its own row of B, magnitude and
scale alone. Knows tensors and rows; names in files are not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from adapterhub.compose.layout_plan import Step
from adapterhub.compose.lora_parts import LoraPart
from adapterhub.errors import CapabilityError

if TYPE_CHECKING:
    from torch import Tensor


def divide_lora(fused: LoraPart, step: Step) -> dict[str, LoraPart]:
    """Each part has its rows of B and all of A, less the directions that its rows do not use; a
    part that uses none is left out, unless that is all of them or DoRA rescales its rows."""
    found: dict[str, LoraPart] = {}
    idle: dict[str, LoraPart] = {}
    for section in step.sections:
        rows = slice(section.first, section.end)
        B, magnitude = fused.B[rows], fused.magnitude
        used = (B != 0).any(dim=0)
        part = LoraPart(
            A=fused.A if used.all() or not used.any() else fused.A[used],
            B=B if used.all() or not used.any() else B[:, used],
            scaling=fused.scaling,
            magnitude=None if magnitude is None else magnitude[rows],
        )
        (found if used.any() or magnitude is not None else idle)[section.module] = part
    return found or idle


def join_lora(parts: Mapping[str, LoraPart], step: Step) -> LoraPart:
    """A stacked, B in blocks, so that the rank is the sum of theirs; parts with the same A, bit for
    bit, share its rows. A part that the adapter does not have is rows of zeros.

    Raises CapabilityError for a DoRA without one of the parts: its magnitudes there would be the
    norms of the base's own rows.
    """
    own = [parts[s.module] for s in step.sections if s.module in parts]
    magnitudes = [part.magnitude for part in own if part.magnitude is not None]
    if magnitudes and len(magnitudes) < len(step.sections):
        missing = next(s.module for s in step.sections if s.module not in parts)
        raise CapabilityError(
            f"this DoRA has nothing at {missing}, whose magnitudes in {step.fused} would be the "
            "base's own",
            hint="train it on all parts of the layer, or on a base that stores the layer fused",
        )
    alike = len({part.scaling for part in own}) == 1
    scaling = own[0].scaling if alike else 1.0
    dtype = _dtype(own) if alike else torch.float32
    distinct: list[Tensor] = []
    blocks: list[tuple[int, int, Tensor]] = []
    for section in step.sections:
        part = parts.get(section.module)
        if part is None:
            continue
        place = next((i for i, A in enumerate(distinct) if _same(A, part.A)), len(distinct))
        if place == len(distinct):
            distinct.append(part.A)
        B = part.B.double() * (part.scaling / scaling)
        blocks.append((section.first, sum(len(A) for A in distinct[:place]), B))
    A = torch.cat([A.to(dtype) for A in distinct])
    B = torch.zeros(step.rows, len(A), dtype=dtype)
    for row, column, block in blocks:
        B[row : row + len(block), column : column + block.shape[1]] = block.to(dtype)
    magnitude = torch.cat(magnitudes) if magnitudes else None
    return LoraPart(A=A, B=B, scaling=scaling, magnitude=magnitude)


def divide_scale(fused: Tensor, step: Step) -> dict[str, Tensor]:
    """(IA)^3: the scale (out, 1) of each part; one of ones is left out, unless all are."""
    found = {s.module: fused[s.first : s.end] for s in step.sections}
    return {name: scale for name, scale in found.items() if (scale != 1).any()} or found


def join_scale(parts: Mapping[str, Tensor], step: Step) -> Tensor:
    """A part that the adapter does not have is scaled by one."""
    own = [parts[s.module] for s in step.sections if s.module in parts]
    dtype = own[0].dtype if len({scale.dtype for scale in own}) == 1 else torch.float32
    whole = torch.ones(step.rows, 1, dtype=dtype)
    for s in step.sections:
        if s.module in parts:
            whole[s.first : s.end] = parts[s.module].to(dtype)
    return whole


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _dtype(parts: list[LoraPart]) -> torch.dtype:
    dtypes = {tensor.dtype for part in parts for tensor in (part.A, part.B)}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32
