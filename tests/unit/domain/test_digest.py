"""Content addresses agree with sha256sum and git, and one value has one digest."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.domain.digest import canonical_json, digest_of, git_blob_id, is_sha256, sha256_hex

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def test_sha256_is_that_of_the_standard() -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_hex(b"abc") == known


@pytest.mark.parametrize("data", [b"", b"abc\n", bytes(range(256))])
def test_a_blob_id_is_the_one_git_computes(data: bytes) -> None:
    git = subprocess.run(
        ["git", "hash-object", "--stdin"], input=data, capture_output=True, check=True
    )
    assert git_blob_id(data) == git.stdout.decode().strip()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0" * 64, True),
        ("0" * 63, False),
        ("0" * 65, False),
        ("A" * 64, False),
        ("g" * 64, False),
        ("0" * 64 + "\n", False),
    ],
)
def test_a_sha256_is_64_lower_case_hex_digits(text: str, is_one: bool) -> None:
    assert is_sha256(text) is is_one


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "한국"}) == '{"a":"한국","b":[1,2.5]}'.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_has_no_digest(number: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json([number])


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert digest_of(dict(reversed(value.items()))) == digest_of(value)
