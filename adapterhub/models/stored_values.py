"""What stored rows of a weight say of the weight they were rounded from: an interval each.

Reads floats, bitsandbytes' 4-bit blocks (NF4 and FP4, with or without double quantization) and its
int8 rows as safetensors keep them, by ranges; no model is loaded. Compares nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub.errors import CapabilityError, FormatError
from adapterhub.formats.strict_json import loads_strict
from adapterhub.models.base_files import Weights
from adapterhub.models.fingerprint import DTYPES

_STATE = ".quant_state.bitsandbytes__"
# Half a unit in the last place, relative: what rounding to a type may have moved a value by.
ROUNDING = {"F64": 0.0, "F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}
_SUBNORMAL = {"F16": 2.0**-25}
_CONV1D_FAMILIES = ("gpt2", "openai-gpt")
_CONV1D_LAYERS = ("c_attn", "c_proj", "c_fc")
# A quantizer's input was float16 or bfloat16 or float32, whatever its authors had.
_INPUT_ROUNDING = ROUNDING["BF16"]


@dataclass(frozen=True)
class Interval:
    """Rows of a weight: (rows, in) float64. What was stored lies within `low` and `high`, `value`
    is what it is taken for; `bound` is the most that the format may be off: half the largest gap
    of its code, times the block's absmax."""

    value: Any
    low: Any
    high: Any
    bound: Any


@dataclass(frozen=True)
class _Packed:
    """A 4-bit weight: the shape and block size that its quantizer noted, and its codes."""

    shape: tuple[int, int]
    block: int
    offset: float | None
    nested_block: int


def matrix_shape(weights: Weights, name: str) -> tuple[int, ...]:
    """(out, in) of a weight, packed or not."""
    packed = _packed(weights, name)
    shape = weights.places[name].info.shape
    return packed.shape if packed else shape[::-1] if _transposed(weights, name) else shape


def read_rows(weights: Weights, name: str, rows: Sequence[int]) -> Interval:
    """Raises CapabilityError for a way of storing that is not read here."""
    import torch

    packed = _packed(weights, name)
    info = weights.places[name].info
    if packed is not None:
        parts = _four_bits(weights, name, packed, rows)
    elif info.dtype == "I8" and _beside(name, "SCB") in weights.places:
        parts = [_int8(weights, name, row) for row in rows]
    elif info.dtype in DTYPES and _transposed(weights, name):
        matrix = _tensor(weights, name).reshape(info.shape)
        parts = [_rounded(matrix[:, row], info.dtype) for row in rows]
    elif info.dtype in DTYPES:
        width = info.shape[1]
        parts = [
            _rounded(_tensor(weights, name, row * width, (row + 1) * width), info.dtype)
            for row in rows
        ]
    else:
        raise CapabilityError(
            f"{name[:200]} of {weights.files.name} is stored as {info.dtype}, which is not "
            "compared",
            hint="compare with the original weights instead",
        )
    return Interval(*(torch.stack(column) for column in zip(*parts, strict=True)))


def _beside(name: str, what: str) -> str:
    return f"{name.removesuffix('.weight')}.{what}"


def _tensor(weights: Weights, name: str, start: int = 0, end: int | None = None) -> Any:
    """Elements of a stored tensor, flat, in float64; codes stay whole numbers."""
    import torch

    info = weights.places[name].info
    kind = {**DTYPES, "U8": "uint8", "I8": "int8"}[info.dtype]
    dtype = getattr(torch, kind)
    stop = None if end is None else end * dtype.itemsize
    data = weights.part(name, start * dtype.itemsize, stop or weights.places[name].size)
    found = torch.frombuffer(bytearray(data), dtype=dtype)
    return found if info.dtype == "U8" else found.to(torch.float64)


def _transposed(weights: Weights, name: str) -> bool:
    """Whether a float weight is stored (in, out), as transformers' Conv1D does, and a quantized one
    of the same layer is not."""
    conv1d = weights.config.get("model_type") in _CONV1D_FAMILIES
    plain = weights.places[name].info.dtype in DTYPES
    return conv1d and plain and name.split(".")[-2] in _CONV1D_LAYERS


def _rounded(value: Any, dtype: str) -> tuple[Any, ...]:
    slack = value.abs() * ROUNDING[dtype] + _SUBNORMAL.get(dtype, 0.0)
    return value, value - slack, value + slack, slack


def _int8(weights: Weights, name: str, row: int) -> tuple[Any, ...]:
    """LLM.int8 (arXiv 2208.07339): a row is whole numbers times its absolute maximum / 127."""
    width = weights.places[name].info.shape[1]
    step = _tensor(weights, _beside(name, "SCB"), row, row + 1) / 127
    value = _tensor(weights, name, row * width, (row + 1) * width) * step
    slack = step / 2 + value.abs() * _INPUT_ROUNDING
    return value, value - slack, value + slack, slack


def _packed(weights: Weights, name: str) -> _Packed | None:
    state = next((n for n in weights.places if n.startswith(f"{name}{_STATE}")), None)
    if state is None:
        return None
    noted = loads_strict(weights.whole(state), name=state)
    try:
        shape, block = noted["shape"], noted["blocksize"]
        offset, nested = noted.get("nested_offset"), noted.get("nested_blocksize", 1)
        sound = len(shape) == 2 and all(type(n) is int and n > 0 for n in (*shape, block, nested))
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound or shape[0] * shape[1] > 2 * weights.places[name].size:
        raise FormatError(f"{state[:200]} does not describe {name[:200]}", hint="fetch it again")
    return _Packed((shape[0], shape[1]), block, offset, nested)


def _four_bits(
    weights: Weights, name: str, packed: _Packed, rows: Sequence[int]
) -> list[tuple[Any, ...]]:
    """QLoRA (arXiv 2305.14314), section 3: code[nibble] x absmax of the block; the first of two
    weights in a byte has the high nibble. A code stands for what is nearer to it than to the next,
    which at both ends is at most the code itself."""
    import torch

    code, low, high = _cells(_tensor(weights, f"{name}.quant_map"))
    half_gap = float(code.sort().values.diff().max()) / 2
    width = packed.shape[1]
    found = []
    for row in rows:
        first, last = row * width, (row + 1) * width
        data = _tensor(weights, name, first // 2, (last + 1) // 2)
        nibbles = torch.stack((data >> 4, data & 15), dim=1).flatten()
        nibbles = nibbles[first % 2 : first % 2 + width].to(torch.int64)
        blocks = torch.arange(first, last) // packed.block
        scale, least, most = (
            part[blocks - blocks[0]] for part in _absmax(weights, name, packed, blocks)
        )
        # A bound of a cell may be negative, so either end of the scale may be the outer one.
        ends = torch.stack([c[nibbles] * s for c in (low, high) for s in (least, most)])
        value = code[nibbles] * scale
        slack = value.abs() * _INPUT_ROUNDING
        found.append((value, ends.amin(0) - slack, ends.amax(0) + slack, half_gap * most + slack))
    return found


def _absmax(weights: Weights, name: str, packed: _Packed, blocks: Any) -> tuple[Any, Any, Any]:
    """(value, least, most) of the absmax of the blocks from the first to the last of `blocks`."""
    import torch

    first, last = int(blocks[0]), int(blocks[-1]) + 1
    stored = _tensor(weights, f"{name}.absmax", first, last)
    if packed.offset is None:
        return stored, stored, stored
    code, low, high = _cells(_tensor(weights, f"{name}.nested_quant_map"))
    outer = _tensor(weights, f"{name}.nested_absmax")
    scales = outer[torch.arange(first, last) // packed.nested_block]
    picked = stored.to(torch.int64)
    value, least, most = (part[picked] * scales + packed.offset for part in (code, low, high))
    return value, least, most


def _cells(code: Any) -> tuple[Any, Any, Any]:
    """Each code with the ends of what is rounded to it: the midpoints to its neighbours."""
    import torch

    order = code.argsort()
    ordered = code[order]
    middles = (ordered[1:] + ordered[:-1]) / 2
    low, high = torch.empty_like(code), torch.empty_like(code)
    low[order] = torch.cat((ordered[:1], middles))
    high[order] = torch.cat((middles, ordered[-1:]))
    return code, low, high
