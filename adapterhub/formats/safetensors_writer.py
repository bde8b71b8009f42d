"""Write a safetensors file tensor by tensor, its header last.

The format (github.com/huggingface/safetensors) puts the header first and lets spaces pad it, so a
place of the largest size that it can have is kept free until all sizes are known. Holds no tensor;
bytes come from the caller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import BinaryIO

# torch's names of what is written, as the format has them, and bytes a number.
CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_METADATA = {"__metadata__": {"format": "pt"}}
_ALIGNMENT = 8


class SafetensorsWriter:
    """A file under way. `most` are all tensors that may be written, each with its dtype (torch's
    name) and the largest shape that it may have; what is not written is not in the file."""

    def __init__(self, file: BinaryIO, most: Mapping[str, tuple[str, Sequence[int]]]) -> None:
        self._file, self._dtypes = file, {name: dtype for name, (dtype, _) in most.items()}
        self._end = 0
        largest = _json({name: self._entry(name, shape) for name, (_, shape) in most.items()})
        self._room = -(-len(largest) // _ALIGNMENT) * _ALIGNMENT
        self._tensors: dict[str, dict[str, object]] = {}
        self._end = 0
        file.write(bytes(8 + self._room))

    def add(self, name: str, shape: Sequence[int], data: memoryview | bytes) -> None:
        """Append one tensor's little-endian bytes."""
        entry = self._entry(name, shape)
        if len(data) != math.prod(shape) * WIDTHS[self._dtypes[name]]:
            raise ValueError(
                f"{name}: {len(data)} bytes for {tuple(shape)} of {self._dtypes[name]}"
            )
        self._file.write(data)
        self._tensors[name] = entry

    def finish(self) -> None:
        """Write the header into its place. Without it the file is none."""
        header = _json(self._tensors).ljust(self._room)
        if len(header) != self._room:
            raise ValueError("a tensor is larger than was announced")
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + header)

    def _entry(self, name: str, shape: Sequence[int]) -> dict[str, object]:
        dtype = self._dtypes[name]
        start, self._end = self._end, self._end + math.prod(shape) * WIDTHS[dtype]
        return {
            "dtype": CODES[dtype],
            "shape": [int(size) for size in shape],
            "data_offsets": [start, self._end],
        }


def _json(tensors: Mapping[str, object]) -> bytes:
    return json.dumps({**_METADATA, **tensors}, separators=(",", ":")).encode()
