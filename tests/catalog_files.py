"""Gettext catalogs and the packages that carry them, built in code."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HEADER = 'msgid ""\nmsgstr ""\n"Language: ko\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
METADATA = "Metadata-Version: 2.1\nName: Greeter\nVersion: 1.2\nLicense-Expression: MIT\n\ntext\n"
CONTROL = "Package: greeter\nVersion: 1.2-3\nArchitecture: all\n"
COPYRIGHT = "Format: x\n\nFiles: *\nCopyright: someone\nLicense: GPL-2+\n text\n"
# Different words each: none is near another.
WORDS = {
    "Save the file": "파일을 저장합니다",
    "Open a folder": "폴더를 엽니다",
    "Delete everything": "모두 삭제",
    "Good morning": "좋은 아침",
    "Network is down": "네트워크가 끊겼습니다",
    "Try once more": "다시 시도하세요",
}


def po(texts: Mapping[str, str], *, header: str = HEADER) -> bytes:
    """A catalog of plain messages; the texts need no escapes but line breaks."""
    entries = (f'msgid "{s}"\nmsgstr "{t}"\n' for s, t in texts.items())
    return "\n".join((header, *entries)).encode()


def mo(
    pairs: Sequence[tuple[bytes, bytes]], *, order: str = "<", revision: int = 0, dependent: int = 0
) -> bytes:
    """A compiled catalog without a hash table, messages in the order given."""
    extra = struct.pack(f"{order}5I", 0, 0, dependent, 0, 0) if revision & 0xFFFF else b""
    count, table = len(pairs), 28 + len(extra)
    start = table + 16 * count
    places, texts = [], b""
    for text in (*(s for s, _ in pairs), *(t for _, t in pairs)):
        places += [len(text), start + len(texts)]
        texts += text + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, revision, count, table, table + 8 * count, 0, 0)
    return head + extra + struct.pack(f"{order}{len(places)}I", *places) + texts


def zipped(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def tarred(files: Mapping[str, bytes], *, packing: str = "gz") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=f"w:{packing}") as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def deb(files: Mapping[str, bytes], *, packing: str = "xz", control: str = CONTROL) -> bytes:
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tarred({"./control": control.encode()}),
        f"data.tar.{packing}": tarred(files, packing=packing) if packing != "zst" else b"zzz",
    }
    found = b"!<arch>\n"
    for name, data in parts.items():
        found += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        found += data + b"\n" * (len(data) % 2)
    return found


def greeter(texts: Mapping[str, str] = WORDS, *, metadata: str = METADATA) -> dict[str, bytes]:
    """What a wheel with one Korean and one German catalog holds."""
    return {
        "greeter/__init__.py": b"",
        "greeter/locale/ko/LC_MESSAGES/greeter.po": po(texts),
        "greeter/locale/de/LC_MESSAGES/greeter.po": po({"Save the file": "Datei sichern"}),
        "greeter-1.2.dist-info/METADATA": metadata.encode(),
    }


def write_wheel(path: Path, files: Mapping[str, bytes] | None = None) -> Path:
    path.write_bytes(zipped(greeter() if files is None else files))
    return path
