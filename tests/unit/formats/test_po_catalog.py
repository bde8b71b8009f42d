"""Catalogs as translators write them: what is read, and what is refused by file and line."""

from __future__ import annotations

import pytest

from adapterhub.domain.gettext import Entry
from adapterhub.errors import FormatError
from adapterhub.formats.po_catalog import decode_po
from tests.catalog_files import HEADER


def entries(text: str) -> tuple[Entry, ...]:
    return decode_po(text.encode(), name="x.po").entries


def test_a_message_is_read_with_its_context_and_line() -> None:
    found = entries(HEADER + 'msgctxt "menu"\nmsgid "Open"\nmsgstr "열기"\n')
    assert found == (Entry(source="Open", translations=("열기",), context="menu", line=5),)


def test_texts_go_on_over_lines_with_escapes() -> None:
    source = r'msgid ""' "\n" r'"a\tb\n"' "\n" r'"\"c\" \\ \x41\101"' '\nmsgstr "가"'
    assert entries(source)[0].source == 'a\tb\n"c" \\ AA'


def test_plural_forms_are_read_in_their_order() -> None:
    text = 'msgid "a file"\nmsgid_plural "%d files"\nmsgstr[0] "하나"\nmsgstr[1] "여럿"\n'
    assert entries(text)[0].translations == ("하나", "여럿")
    assert entries(text)[0].plural == "%d files"


def test_fuzzy_is_of_the_next_message_alone_and_obsolete_ones_are_not_read() -> None:
    text = (
        '#, python-format, fuzzy\nmsgid "a"\nmsgstr "가"\n\n'
        'msgid "b"\nmsgstr "나"\n\n'
        '#, fuzzy\n#~ msgid "old"\n#~ msgstr "옛"\n\n'
        '#: at.c:1\n#| msgid "was"\nmsgid "c"\nmsgstr "다"\n'
    )
    assert [(entry.source, entry.fuzzy) for entry in entries(text)] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]


def test_a_comment_may_stand_within_a_message() -> None:
    assert entries('msgid "a"\n# why\nmsgstr "가"\n')[0].translations == ("가",)


def test_the_header_is_no_message() -> None:
    catalog = decode_po((HEADER + 'msgid "a"\nmsgstr "가"\n').encode(), name="x.po")
    assert catalog.headers["language"] == "ko"
    assert [entry.source for entry in catalog.entries] == ["a"]


@pytest.mark.parametrize("charset", ["UTF-8", "EUC-KR", "CP949"])
def test_the_declared_character_set_is_honoured(charset: str) -> None:
    text = HEADER.replace("UTF-8", charset) + 'msgid "a"\nmsgstr "한글"\n'
    assert decode_po(text.encode(charset), name="x.po").entries[0].translations == ("한글",)


def test_a_byte_order_mark_and_the_breaks_of_windows_are_fine() -> None:
    text = HEADER + 'msgid "a"\nmsgstr "가"\n'
    data = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert decode_po(data, name="x.po").entries[0].translations == ("가",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('msgid "a"\nmsgid "b"\nmsgstr "c"\n', "line 2: msgid a second time in one entry"),
        ('msgid "a"\n', "line 1: an entry without a msgstr"),
        ('msgstr "a"\n', "line 1: msgstr without a msgid"),
        ('"a"\n', "line 1: a text that belongs to nothing"),
        ('msgid "a\nmsgstr "b"\n', "line 1: a text that is not closed"),
        ('msgid "a" b\nmsgstr "b"\n', "line 1: a text that is not closed, or has something"),
        ("hello\n", "line 1: 'hello' is no keyword with a text"),
        ('msgid "\\q"\nmsgstr "b"\n', r"line 1: \\q is no escape"),
        ('msgid "\\377"\nmsgstr "b"\n', r"line 1: \\377 is no ASCII character"),
        ('msgid "a"\nmsgstr[0] "b"\n', "line 2: msgstr where none may stand"),
        ('msgid "a"\nmsgid_plural "b"\nmsgstr "c"\n', "line 3: msgstr where none may stand"),
        ('msgid "a"\nmsgid_plural "b"\nmsgstr[1] "c"\n', "line 3: the plural forms are not numb"),
        ('msgid "a"\nmsgstr "b"\nmsgid_plural "c"\n', "line 3: msgid_plural where none may"),
        (HEADER + HEADER, "line 5: a second header"),
        (HEADER.replace("UTF-8", "idna"), "is written in 'idna', which is not read here"),
    ],
)
def test_what_msgfmt_would_refuse_is_refused_by_line(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=rf"x\.po.*{said}") as caught:
        entries(text)
    assert caught.value.hint


def test_bytes_of_another_character_set_are_refused_by_line() -> None:
    data = (HEADER + 'msgid "a"\nmsgstr "').encode() + "한".encode("euc-kr") + b'"\n'
    with pytest.raises(FormatError, match=r"x\.po line 6: not utf-8"):
        decode_po(data, name="x.po")
