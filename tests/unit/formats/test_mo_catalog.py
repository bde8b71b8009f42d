"""Compiled catalogs: what is read, and what is refused by file and message."""

from __future__ import annotations

import gettext
import io

import pytest

from adapterhub.errors import FormatError
from adapterhub.formats.mo_catalog import decode_mo
from tests.catalog_files import mo

HEADER = (
    b"",
    b"Language: ko\nContent-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=1; plural=0;\n",
)
PAIRS = [
    HEADER,
    (b"Open", "열기".encode()),
    (b"menu\x04Open", "메뉴 열기".encode()),
    (b"a file\0%d files", "파일 %d개".encode()),
]


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_are_read_in_either_byte_order(order: str) -> None:
    catalog = decode_mo(mo(PAIRS, order=order), name="x.mo")
    assert [(e.context, e.source, e.plural, e.translations) for e in catalog.entries] == [
        (None, "Open", None, ("열기",)),
        ("menu", "Open", None, ("메뉴 열기",)),
        (None, "a file", "%d files", ("파일 %d개",)),
    ]
    assert catalog.headers["language"] == "ko"


def test_the_standard_library_reads_the_same() -> None:
    theirs = gettext.GNUTranslations(io.BytesIO(mo(PAIRS)))
    for entry in decode_mo(mo(PAIRS), name="x.mo").entries:
        if entry.plural is not None:
            assert theirs.ngettext(entry.source, entry.plural, 2) == entry.translations[0]
        elif entry.context is not None:
            assert theirs.pgettext(entry.context, entry.source) == entry.translations[0]
        else:
            assert theirs.gettext(entry.source) == entry.translations[0]


def test_messages_that_depend_on_the_machine_are_counted() -> None:
    assert decode_mo(mo(PAIRS, revision=1, dependent=3), name="x.mo").unreadable == 3


def test_the_declared_character_set_is_honoured() -> None:
    pairs = [(b"", b"Content-Type: text/plain; charset=EUC-KR\n"), (b"a", "한글".encode("euc-kr"))]
    assert decode_mo(mo(pairs), name="x.mo").entries[0].translations == ("한글",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no compiled gettext catalog"),
        (b"\0" * 40, "is no compiled gettext catalog"),
        (mo(PAIRS)[:50], "is cut off: a table lies outside of it"),
        (mo(PAIRS)[:-1], "message 3 lies outside of the file, or does not end"),
        (mo(PAIRS, revision=2 << 16), "is of revision 2"),
        (mo([HEADER, (b"a", b"\xff\xfe")]), "message 1 is not utf-8"),
        (mo([HEADER, (b"a\0b", b"x\0" * 9)]), "message 1 has more than 6 plural forms"),
    ],
)
def test_a_broken_catalog_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=rf"x\.mo.*{said}"):
        decode_mo(data, name="x.mo")


def test_texts_that_share_bytes_are_refused() -> None:
    data = bytearray(mo([(b"a", b"b" * 400)] * 3))
    for place in range(3):  # each source as long as the rest of the file
        data[28 + 8 * place : 32 + 8 * place] = (500).to_bytes(4, "little")
    with pytest.raises(FormatError, match="share bytes"):
        decode_mo(bytes(data), name="x.mo")
