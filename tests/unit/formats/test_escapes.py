"""Any text can be written with printable characters, and read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.formats.escapes import escape, unescape
from adapterhub.formats.schema import FORGING


@given(st.text())
def test_every_text_survives(text: str) -> None:
    written = escape(text)
    assert not FORGING.search(written)
    assert unescape(written) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [("a\nb", r"a\nb"), ("a\\nb", r"a\\nb"), ("\x1b[2J", r"\u001b[2J"), ("안녕", "안녕")],
)
def test_what_is_written_can_be_read_by_people(text: str, written: str) -> None:
    assert escape(text) == written


@given(st.text())
def test_whatever_stands_in_a_file_can_be_unescaped(text: str) -> None:
    assert isinstance(unescape(text), str)
