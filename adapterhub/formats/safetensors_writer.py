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

_METADATA = {"__metadata__": {"format": "pt"}}
_ALIGNMENT = 8


class SafetensorsWriter:
    """A file under way. `names` are all tensors that may be written, each with the largest shape
    that it may have; `dtype` is the format's name for all of them (`F32`), `width` its bytes a
    number."""

    def __init__(
        self, file: BinaryIO, names: Mapping[str, Sequence[int]], *, dtype: str, width: int
    ) -> None:
        self._file, self._dtype, self._width = file, dtype, width
        self._end = 0
        largest = _json({name: self._entry(shape) for name, shape in names.items()})
        self._room = -(-len(largest) // _ALIGNMENT) * _ALIGNMENT
        self._tensors: dict[str, dict[str, object]] = {}
        self._end = 0
        file.write(bytes(8 + self._room))

    def add(self, name: str, shape: Sequence[int], data: memoryview | bytes) -> None:
        """Append one tensor's little-endian bytes."""
        entry = self._entry(shape)
        if len(data) != math.prod(shape) * self._width:
            raise ValueError(f"{name}: {len(data)} bytes for {tuple(shape)} of {self._dtype}")
        self._file.write(data)
        self._tensors[name] = entry

    def finish(self) -> None:
        """Write the header into its place. Without it the file is none."""
        header = _json(self._tensors).ljust(self._room)
        if len(header) != self._room:
            raise ValueError("a tensor is larger than was announced")
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + header)

    def _entry(self, shape: Sequence[int]) -> dict[str, object]:
        start, self._end = self._end, self._end + math.prod(shape) * self._width
        return {
            "dtype": self._dtype,
            "shape": [int(size) for size in shape],
            "data_offsets": [start, self._end],
        }


def _json(tensors: Mapping[str, object]) -> bytes:
    return json.dumps({**_METADATA, **tensors}, separators=(",", ":")).encode()
