"""`task.toml`: strict about its keys, and helpful about slips."""

from __future__ import annotations

from typing import Any

import pytest
import tomli_w

from adapterhub.errors import FormatError
from adapterhub.formats.task_file import TaskFile, decode_task

DIGEST = "a" * 64
LEAST = {
    "name": "capitals",
    "version": "1",
    "kind": "generate",
    "rows": "items.jsonl",
    "sha256": DIGEST,
}


def decoded(**change: Any) -> TaskFile:
    table = {key: value for key, value in {**LEAST, **change}.items() if value is not None}
    return decode_task(tomli_w.dumps(table).encode())


def test_five_keys_are_enough() -> None:
    assert decoded() == TaskFile(
        name="capitals", version="1", kind="generate", rows="items.jsonl", sha256=DIGEST
    )


def test_every_key_is_kept() -> None:
    found = decoded(
        description="Capitals of countries.",
        metrics=["regex", "f1"],
        max_new_tokens=9,
        pattern="(?x) a\n b",
        stop=["\n", "Q:"],
        chat=False,
        separator="\n",
        license="CC0-1.0",
        source="https://example.org",
    )
    assert (found.metrics, found.stop, found.pattern) == (
        ("regex", "f1"),
        ("\n", "Q:"),
        "(?x) a\n b",
    )
    assert (found.chat, found.separator, found.license) == (False, "\n", "CC0-1.0")


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("metric", "'metrics'"), ("Rows", "'rows'"), ("max_tokens", "'max_new_tokens'")],
)
def test_an_unknown_key_gets_a_suggestion(key: str, suggestion: str) -> None:
    with pytest.raises(FormatError, match=rf"^task\.toml: the key '{key}' is not known") as caught:
        decoded(**{key: "x"})
    assert suggestion in (caught.value.hint or "")


def test_a_key_like_no_other_gets_the_list() -> None:
    with pytest.raises(FormatError) as caught:
        decoded(qqq=1)
    assert "max_new_tokens" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"name": None}, "the key 'name' is missing"),
        ({"sha256": None}, "the key 'sha256' is missing"),
        ({"sha256": "A" * 64}, "sha256: not 64 hexadecimal digits"),
        ({"kind": "essay"}, "kind: invalid enum value 'essay'"),
        ({"metrics": ["exact"]}, "invalid enum value 'exact'"),
        ({"metrics": "f1"}, "metrics"),
        ({"version": 1}, "version: expected `str`, got `int`"),
        ({"version": " "}, "version: ' ' names nothing"),
        ({"name": "a@b"}, "name: 'a@b' names nothing"),
        ({"name": "a\x1b[2J"}, "control characters"),
        ({"chat": "no"}, "chat"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"stop": "\n"}, "stop: not a list"),
        ({"stop": [1]}, "stop: not a text"),
        ({"pattern": 1}, "pattern: not a text"),
    ],
)
def test_what_a_key_may_not_be_is_named(change: dict[str, Any], fact: str) -> None:
    with pytest.raises(FormatError) as caught:
        decoded(**change)
    assert caught.value.message.startswith("task.toml")
    assert fact in caught.value.message
    assert caught.value.hint
