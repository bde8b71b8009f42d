"""Read some files of a wheel, a zip, a tar or a Debian package, without unpacking it.

Knows nothing of catalogs. Links and devices are passed over.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn, cast

from adapterhub.errors import FormatError, UsageError
from adapterhub.formats.po_catalog import MAX_BYTES
from adapterhub.hub.files import disk

MAX_FILES = 10_000  # that are wanted
MAX_WANTED = 500_000_000  # bytes of them together
MAX_UNPACKED = 10_000_000_000  # bytes of a tar, all of which must be gone through
ENDINGS = (
    ".whl", ".zip", ".deb", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
)  # fmt: skip

_AGAIN = "fetch it again, or unpack it and name the folder"
_AR = b"!<arch>\n"
_AR_HEAD = 60
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError,
    NotImplementedError, RuntimeError, ValueError, MemoryError,
)  # fmt: skip
_PACKINGS = {"gz": b"\x1f\x8b", "xz": b"\xfd7zXZ\0", "bz2": b"BZh"}
_BLOCK = 512

Wanted = Callable[[str], bool]


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def read_archive(path: Path, wanted: Wanted) -> dict[str, bytes]:
    """POSIX path inside -> bytes of the files that are `wanted`, by path.

    Raises FormatError for a broken archive and past the limits, StorageError, and UsageError for a
    Debian package in zstd.
    """
    name = path.name
    with disk("read", path), path.open("rb") as file, _sound(name):
        if name.lower().endswith((".whl", ".zip")):
            members = _zip_members(file, wanted)
        elif name.lower().endswith(".deb"):
            members = _deb_members(file, wanted, name)
        else:
            members = _tar_members(file, wanted, name)
        return dict(sorted(_limited(members, name).items()))


@contextmanager
def _sound(name: str) -> Iterator[None]:
    try:
        yield
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not an unpacker's
        fact = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{name} cannot be unpacked: {fact}", hint=_AGAIN) from error


def _limited(members: Iterator[tuple[str, IO[bytes]]], name: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for inside, file in members:
        with file:
            data = file.read(MAX_BYTES + 1)
        total += len(data)
        if len(data) > MAX_BYTES:
            _refuse(f"{inside} in {name} has more than {MAX_BYTES:,} bytes")
        if total > MAX_WANTED or len(found) >= MAX_FILES:
            _refuse(f"{name} holds more than {MAX_FILES:,} files or {MAX_WANTED:,} bytes of them")
        if inside in found:
            _refuse(f"{name} holds {inside} twice")
        found[inside] = data
    return found


def _zip_members(file: IO[bytes], wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if wanted(member.filename) and not member.is_dir():
                yield member.filename, archive.open(member)


def _tar_members(file: IO[bytes], wanted: Wanted, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    head = file.read(6)
    file.seek(0)
    packing = next((p for p, magic in _PACKINGS.items() if head.startswith(magic)), "tar")
    return _unpacked_members(file, packing, wanted, name)


def _unpacked_members(
    file: IO[bytes], packing: str, wanted: Wanted, name: str
) -> Iterator[tuple[str, IO[bytes]]]:
    stream = _Tail(_unpacked(file, packing), name)
    # As a stream: what is not wanted is passed over and never kept.
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            inside = member.name.removeprefix("./").lstrip("/")
            if member.isreg() and wanted(inside):
                content = archive.extractfile(member)
                assert content is not None  # a regular file has some
                yield inside, content
    while stream.read(1 << 20):
        pass
    # tarfile takes the end of the bytes for the end of the archive.
    if stream.tail != bytes(_BLOCK):
        _refuse(f"{name} is cut off")


def _unpacked(file: IO[bytes], packing: str) -> IO[bytes]:
    """These raise EOFError where the packed bytes end too early."""
    if packing == "gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if packing == "xz":
        return cast("IO[bytes]", lzma.LZMAFile(file))
    if packing == "bz2":
        return cast("IO[bytes]", bz2.BZ2File(file))
    return file


def _deb_members(file: IO[bytes], wanted: Wanted, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of data.tar, and `control` of control.tar."""
    if file.read(len(_AR)) != _AR:
        _refuse(f"{name} is no Debian package")
    parts = {"control.tar": lambda inside: inside == "control", "data.tar": wanted}
    while head := file.read(_AR_HEAD):
        part, size = _ar_head(head, name)
        start = file.tell()
        kind, _, packing = part.rpartition(".") if part.count(".") > 1 else (part, "", "tar")
        if kind in parts:
            if packing not in ("tar", "gz", "xz", "bz2"):
                raise UsageError(
                    f"{name} is packed with {packing}, which is not read here",
                    hint=f"dpkg-deb -x {name} DIR, then name that folder: ./DIR",
                )
            part_file = cast("IO[bytes]", _Part(file, size))
            yield from _unpacked_members(part_file, packing, parts[kind], name)
            del parts[kind]
        file.seek(start + size + size % 2)
    if parts:
        _refuse(f"{name} holds no {min(parts)}")


def _ar_head(head: bytes, name: str) -> tuple[str, int]:
    size = head[48:58].strip()
    if len(head) < _AR_HEAD or head[58:] != b"`\n" or not size.isdigit():
        _refuse(f"{name} is cut off or damaged")
    return head[:16].decode("ascii", "replace").rstrip(" /"), int(size)


class _Tail(io.RawIOBase):
    """A stream that remembers its last block, and has a limit."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name, self._count = file, name, 0
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._count += len(data)
        if self._count > MAX_UNPACKED:
            _refuse(f"{self._name} unpacks to more than {MAX_UNPACKED:,} bytes")
        self.tail = (self.tail + data)[-_BLOCK:]
        return data


class _Part(io.RawIOBase):
    """The next `size` bytes of a file, as a stream."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _refuse(fact: str) -> NoReturn:
    raise FormatError(fact, hint=_AGAIN)
