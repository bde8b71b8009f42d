"""Find tensors that hold NaN or infinity, or nothing but zeros, by the standard library alone.

Looks at exponent bytes in slices, at the speed of memory rather than of Python; bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from adapterhub.formats.safetensors_header import Header, TensorInfo

CHUNK = 1 << 20  # a multiple of every element width


def _table(mask: int) -> bytes:
    """Maps a byte with all bits of `mask` set to 1, any other to 0."""
    return bytes(int(byte & mask == mask) for byte in range(256))


_HIGH_7 = _table(0x7F)
_WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E5M2": 1, "F8_E4M3": 1}
# A value is not finite when all its exponent bits are set. By dtype: how to test the last byte of
# an element and, where the exponent reaches into it, the byte before.
_EXPONENT: dict[str, tuple[bytes, bytes | None]] = {
    "F64": (_HIGH_7, _table(0xF0)),
    "F32": (_HIGH_7, _table(0x80)),
    "BF16": (_HIGH_7, _table(0x80)),
    "F16": (_table(0x7C), None),
    "F8_E5M2": (_table(0x7C), None),
    "F8_E4M3": (_HIGH_7, None),  # no infinity; NaN is S.1111.111 only (arXiv 2209.05433)
}


def find_nonfinite(path: Path, header: Header) -> list[str]:
    """Names of the tensors with a NaN or an infinity, in the order of the file."""
    with path.open("rb") as file:
        return [
            name
            for name, info in header.tensors.items()
            if info.dtype in _EXPONENT
            and any(_has_nonfinite(part, info.dtype) for part in _chunks(file, header, info))
        ]


def find_zero(path: Path, header: Header) -> list[str]:
    """Names of the tensors in which every value is 0 or -0, in the order of the file."""
    with path.open("rb") as file:
        return [
            name
            for name, info in header.tensors.items()
            if all(_is_zero(part, info.dtype) for part in _chunks(file, header, info))
        ]


def _chunks(file: BinaryIO, header: Header, info: TensorInfo) -> Iterator[bytes]:
    file.seek(header.data_start + info.start)
    left = info.end - info.start
    while left > 0:
        part = file.read(min(CHUNK, left))
        if not part:
            return
        left -= len(part)
        yield part


def _has_nonfinite(part: bytes, dtype: str) -> bool:
    size = _WIDTHS[dtype]
    last_table, before_table = _EXPONENT[dtype]
    last = part[size - 1 :: size]
    if last_table is _HIGH_7 and b"\x7f" not in last and b"\xff" not in last:
        return False  # the usual case: no value is anywhere near the end of the range
    hits = last.translate(last_table)
    if before_table is None:
        return b"\x01" in hits
    before = part[size - 2 :: size].translate(before_table)
    return int.from_bytes(hits, "little") & int.from_bytes(before, "little") != 0


def _is_zero(part: bytes, dtype: str) -> bool:
    if part == bytes(len(part)):
        return True
    if dtype not in _EXPONENT:
        return False
    size = _WIDTHS[dtype]
    signs = part[size - 1 :: size].count(b"\x80")
    return part.count(b"\0") + signs == len(part)
