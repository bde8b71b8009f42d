"""Promises of the strict JSON reader."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.errors import FormatError
from adapterhub.formats.strict_json import loads_strict

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('ab\\"[{é', max_size=4), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=50)
@given(JSON)
def test_every_ordinary_document_is_read_as_json_reads_it(value: Any) -> None:
    assert loads_strict(json.dumps(value).encode(), name="x") == value


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' twice"),
        (b"[NaN]", "not finite"),
        (b"[-Infinity]", "not finite"),
        (b"[1e999]", "not finite"),
        (b"\xff{}", "not UTF-8"),
        (b'["\\ud800"]', "surrogate"),
        (b"[18446744073709551616]", "64 bits"),
        (b"9" * 5000, "64 bits"),
        (b"{", "line 1"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'["\x1b[31m"]', "not JSON"),
        (b"", "not JSON"),
        (b"[" * 33 + b"]" * 33, "32 levels"),
        (b"[" * 500_000, "32 levels"),
        (b'{"a":' * 150_000, "32 levels"),
        (b'"' + b"x" * 1_000_000 + b'"', "limit"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused_by_name(data: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact) as caught:
        loads_strict(data, name="some.json")
    assert "some.json" in caught.value.message
    assert caught.value.hint


def test_brackets_inside_text_do_not_count_as_depth() -> None:
    assert loads_strict(json.dumps(["[" * 100 + '\\"{']).encode(), name="x")


def test_an_unending_text_of_quotes_takes_one_pass() -> None:
    with pytest.raises(FormatError):
        loads_strict(b'"' + b'\\"' * 400_000, name="x")


def test_a_late_double_key_among_many_is_found_in_one_pass() -> None:
    keys = [*range(60_000), 59_999]
    data = b"{%s}" % b",".join(b'"%d":0' % key for key in keys)
    start = time.perf_counter()
    with pytest.raises(FormatError, match="'59999' twice"):
        loads_strict(data, name="x")
    assert time.perf_counter() - start < 0.5


@pytest.mark.long
@settings(max_examples=20_000, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        loads_strict(data, name="x")
