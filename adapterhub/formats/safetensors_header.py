"""Check a safetensors file's header before anyone else opens the file.

Works on bytes, so that a header fetched by range is checked like a file's. Values are for
`tensor_scan`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.errors import FormatError
from adapterhub.formats.strict_json import loads_strict
from adapterhub.formats.tensor_scan import find_nonfinite, find_zero

__all__ = [
    "Header",
    "TensorInfo",
    "find_nonfinite",
    "find_zero",
    "header_length",
    "parse_header",
    "read_header",
]

MAX_HEADER = 10_000_000
MAX_TENSORS = 50_000
_WIDTHS = {
    "F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_AGAIN = "fetch the file again, or ask its author to write it anew"
# What is often found where weights should be: how it starts, what it is, what to do.
_WEB = "the download was answered by a web page"
_TEXTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run `git lfs pull` there"),
    (b"<!doctype html", "an HTML page, not weights", _WEB),
    (b"<html", "an HTML page, not weights", _WEB),
)
_CONVERT = "ask its author to convert it"
_BINARIES = (
    (b"PK\x03\x04", "a zip or pickle archive, not safetensors", _CONVERT),
    (b"\x80\x02", "a pickle, not safetensors", _CONVERT),
    (b"\x80\x03", "a pickle, not safetensors", _CONVERT),
    (b"\x80\x04", "a pickle, not safetensors", _CONVERT),
    (b"\x80\x05", "a pickle, not safetensors", _CONVERT),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor; `start` and `end` count bytes from the header's `data_start`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """Tensors in the order of their bytes; `size` is the whole file's."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    size: int


def read_header(path: Path) -> Header:
    """Raises FormatError for anything but a well-formed file; reads the header only."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        needed = header_length(start, size, name=path.name)
        return parse_header(start + file.read(max(0, needed - len(start))), size, name=path.name)


def header_length(prefix: bytes, file_size: int, *, name: str) -> int:
    """How many bytes of the file `parse_header` needs, from its first 8 (better 64)."""
    _refuse_impostors(prefix[:64], name)
    if len(prefix) < 8 or file_size < 8:
        raise FormatError(f"{name} is too short for safetensors", hint=_AGAIN)
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER:
        raise FormatError(
            f"{name} is not safetensors, or its header of {length:,} bytes exceeds {MAX_HEADER:,}",
            hint=_AGAIN,
        )
    if 8 + length > file_size:
        raise FormatError(f"{name} ends inside its header", hint=_AGAIN)
    return 8 + length


def _refuse_impostors(start: bytes, name: str) -> None:
    # The length of a good header may begin with any two bytes; behind it is the header itself.
    binaries = () if start[8:9] == b"{" else _BINARIES
    text = start.lstrip().lower()
    for given, known in ((text, _TEXTS), (start, binaries)):
        for magic, what, hint in known:
            if given.startswith(magic):
                raise FormatError(f"{name} is {what}", hint=hint)


def parse_header(prefix: bytes, file_size: int, *, name: str) -> Header:
    """Check the header at the start of `prefix` against every rule and the file's size."""
    data_start = header_length(prefix, file_size, name=name)
    if len(prefix) < data_start:
        raise FormatError(f"{name} ends inside its header", hint=_AGAIN)
    body = loads_strict(prefix[8:data_start], name=f"{name} (header)", max_bytes=MAX_HEADER)
    if not isinstance(body, dict):
        raise FormatError(f"{name} has a header that is not an object", hint=_AGAIN)
    metadata = _metadata(body.pop("__metadata__", {}), name)
    if not 1 <= len(body) <= MAX_TENSORS:
        raise FormatError(
            f"{name} holds {len(body):,} tensors, not 1 to {MAX_TENSORS:,}", hint=_AGAIN
        )
    found = {key: _tensor(key, entry, name) for key, entry in body.items()}
    tensors = dict(sorted(found.items(), key=lambda item: item[1].start))
    _check_cover(tensors, file_size - data_start, name)
    return Header(tensors, metadata, data_start, file_size)


def _metadata(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(f"{name} has metadata that is not text by name", hint=_AGAIN)
    return value


def _tensor(key: str, entry: Any, name: str) -> TensorInfo:
    where = f"{name}: tensor {key[:200]!r}"
    if len(key) > 512 or not key.isprintable():
        raise FormatError(f"{where} has no printable name of up to 512 characters", hint=_AGAIN)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} needs dtype, shape and data_offsets alone", hint=_AGAIN)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _WIDTHS:
        raise FormatError(f"{where} has the unknown dtype {str(dtype)[:40]!r}", hint=_AGAIN)
    if not _whole_numbers(shape) or len(shape) > 8 or 0 in shape:
        raise FormatError(f"{where} has no size: shape {str(shape)[:80]}", hint=_AGAIN)
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise FormatError(f"{where} has bad offsets {str(offsets)[:80]}", hint=_AGAIN)
    start, end = offsets
    if end - start != math.prod(shape) * _WIDTHS[dtype]:
        raise FormatError(
            f"{where} has {end - start:,} bytes for shape {shape} of {dtype}", hint=_AGAIN
        )
    return TensorInfo(dtype, tuple(shape), start, end)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_cover(tensors: Mapping[str, TensorInfo], length: int, name: str) -> None:
    """Tensors in order must touch: no gap to hide bytes in, no overlap, nothing after the end."""
    position = 0
    for key, info in tensors.items():
        if info.start != position:
            fact = "overlaps its neighbour" if info.start < position else "leaves a gap before it"
            raise FormatError(f"{name}: tensor {key[:200]!r} {fact}", hint=_AGAIN)
        position = info.end
    if position != length:
        fact = "is cut short" if position > length else "goes on after its last tensor"
        raise FormatError(
            f"{name} {fact}: {length:,} bytes of data, {position:,} described", hint=_AGAIN
        )
