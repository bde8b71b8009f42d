"""Read a compiled gettext catalog (.mo), by the GNU gettext manual, section 10.3.

Of either byte order, with or without a hash table, which is not read. Texts that depend on the
machine (revision 0.1 and 1.1) are counted, not read.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from adapterhub.domain.gettext import Catalog, Entry
from adapterhub.errors import FormatError
from adapterhub.formats.po_catalog import (
    HINT,
    MAX_BYTES,
    MAX_ENTRIES,
    MAX_PLURALS,
    charset_of,
    parse_headers,
)

_MAGIC = 0x950412DE
_HEAD = 28


def decode_mo(data: bytes, *, name: str) -> Catalog:
    """Raises FormatError, naming the file and the message by its number, for tables and texts that
    lie outside the file or share bytes, wrong character sets, and past the limits."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{name} has {len(data):,} bytes, the limit is {MAX_BYTES:,}", hint=HINT)
    order = _order(data, name)
    revision, count, sources, targets, _, _ = struct.unpack_from(f"{order}6I", data, 4)
    if revision >> 16 > 1:
        _refuse(name, f"is of revision {revision >> 16}, which is not read here")
    if count > MAX_ENTRIES:
        _refuse(name, f"holds {count:,} messages, the limit is {MAX_ENTRIES:,}")
    pairs = list(
        zip(
            _strings(data, sources, count, order, name),
            _strings(data, targets, count, order, name),
            strict=True,
        )
    )
    header = next((target for source, target in pairs if not source), b"")
    charset = charset_of(header, name)
    return Catalog(
        name=name,
        entries=tuple(
            _entry(source, target, charset, f"{name} message {number}")
            for number, (source, target) in enumerate(pairs)
            if source
        ),
        headers=parse_headers(_text(header, charset, name)),
        unreadable=_dependent(data, revision, order, name),
    )


def _order(data: bytes, name: str) -> str:
    fits = [
        o for o in "<>" if len(data) >= _HEAD and struct.unpack_from(f"{o}I", data)[0] == _MAGIC
    ]
    if not fits:
        _refuse(name, "is no compiled gettext catalog, or cut off")
    return fits[0]


def _strings(data: bytes, table: int, count: int, order: str, name: str) -> list[bytes]:
    """The texts of a table of (length, offset) pairs, each ended by a zero byte."""
    if table + 8 * count > len(data):
        _refuse(name, "is cut off: a table lies outside of it")
    places = list(struct.iter_unpack(f"{order}II", data[table : table + 8 * count]))
    # Texts that share bytes would unfold to more than the file holds.
    if sum(length for length, _ in places) > len(data):
        _refuse(name, "holds texts that share bytes")
    for number, (length, offset) in enumerate(places):
        if offset + length >= len(data) or data[offset + length] != 0:
            _refuse(f"{name} message {number}", "lies outside of the file, or does not end")
    return [data[offset : offset + length] for length, offset in places]


def _entry(source: bytes, target: bytes, charset: str, where: str) -> Entry:
    before, mark, after = source.partition(b"\x04")
    context, rest = (before, after) if mark else (b"", before)
    singular, zero, plural = rest.partition(b"\0")
    forms = target.split(b"\0") if zero else [target]
    if len(forms) > MAX_PLURALS:
        _refuse(where, f"has more than {MAX_PLURALS} plural forms")
    return Entry(
        source=_text(singular, charset, where),
        translations=tuple(_text(form, charset, where) for form in forms),
        plural=_text(plural, charset, where) if zero else None,
        context=_text(context, charset, where) if mark else None,
    )


def _text(data: bytes, charset: str, where: str) -> str:
    try:
        return data.decode(charset)
    except UnicodeDecodeError:
        _refuse(where, f"is not {charset}")


def _dependent(data: bytes, revision: int, order: str, name: str) -> int:
    if revision & 0xFFFF == 0:
        return 0
    if len(data) < _HEAD + 20:
        _refuse(name, "is cut off")
    count: int = struct.unpack_from(f"{order}5I", data, _HEAD)[2]
    if count > MAX_ENTRIES:
        _refuse(name, f"holds {count:,} messages, the limit is {MAX_ENTRIES:,}")
    return count


def _refuse(where: str, fact: str) -> NoReturn:
    raise FormatError(f"{where} {fact}", hint=HINT)
