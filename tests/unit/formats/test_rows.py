"""Rows of data: both forms are read, and a broken one is named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError, NotFoundError, StorageError
from adapterhub.formats.rows import read_rows, row_to_messages

PROMPT = {"prompt": "2+2?", "completion": "4"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4"},
    ]
}


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "data.jsonl"
    path.write_bytes(data)
    return path


def _user(content: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def _assistant(content: Any = "yes") -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def test_rows_come_with_their_line_numbers_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    row = json.dumps(PROMPT).encode()
    path = _write(tmp_path, b"\n" + row + b"\r\n  \n" + row)
    assert read_rows(path) == [(2, PROMPT), (4, PROMPT)]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    assert read_rows(_write(tmp_path, b"\xef\xbb\xbf" + json.dumps(PROMPT).encode())) == [
        (1, PROMPT)
    ]


def test_a_line_separator_inside_a_string_does_not_cut_the_row(tmp_path: Path) -> None:
    row = {"prompt": "a\u2028b\x85c", "completion": "d"}
    path = _write(tmp_path, json.dumps(row, ensure_ascii=False).encode())
    assert read_rows(path) == [(1, row)]


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        pytest.param(b'{"prompt": "a"', "not JSON", id="cut off"),
        pytest.param(b"[1, 2]", "a list, not an object", id="list"),
        pytest.param(b"null", "null, not an object", id="null"),
        pytest.param(b'{"prompt": "\xff"}', "not UTF-8", id="latin-1"),
        pytest.param(b'{"a": 1, "a": 2}', "the key 'a' appears twice", id="repeated key"),
        pytest.param(b'{"a": NaN}', "NaN is not a JSON number", id="NaN"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'{"a": ' + b"1" * 5000 + b"}", "not JSON", id="endless number"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, fact: str) -> None:
    path = _write(tmp_path, json.dumps(PROMPT).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=rf"^data\.jsonl line 2: .*{fact}") as caught:
        read_rows(path)
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl has no rows"):
        read_rows(_write(tmp_path, data))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(StorageError, match="cannot be read"):
        read_rows(tmp_path)


def test_a_chat_row_becomes_messages_and_an_answer() -> None:
    assert row_to_messages(CHAT, 1, "data.jsonl") == (
        (Message(role="system", content="Add."), Message(role="user", content="2+2?")),
        "4",
    )


def test_a_prompt_row_says_the_same_as_its_chat_row() -> None:
    row = {"completion": "4", "prompt": "2+2?", "system": "Add.", "id": 17}
    assert row_to_messages(row, 1, "data.jsonl") == row_to_messages(CHAT, 1, "data.jsonl")


def test_earlier_turns_belong_to_the_prompt() -> None:
    row = {"messages": [_user("a"), _assistant("b"), _user("c"), _assistant("d")]}
    messages, answer = row_to_messages(row, 1, "data.jsonl")
    assert [message.content for message in messages] == ["a", "b", "c"]
    assert answer == "d"


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ({}, 'neither "messages" nor "prompt"'),
        ({"prompt": "a"}, 'neither "messages" nor "prompt"'),
        ({**CHAT, **PROMPT}, "both"),
        ({**CHAT, "completion": "4"}, "both"),
        ({**PROMPT, "sytem": "x"}, "the key 'sytem' is not known"),
        ({**PROMPT, "System": "x"}, "the key 'System' is not known"),
        ({"prompt": 3, "completion": "4"}, '"prompt" is a number, not text'),
        ({"prompt": "a", "completion": " \n"}, '"completion" is empty'),
        ({"prompt": "a", "completion": None}, '"completion" is null, not text'),
        ({"prompt": "a", "completion": "\ud83d"}, "half a character"),
        ({"messages": "hi"}, '"messages" is not a list'),
        ({"messages": []}, '"messages" is not a list with messages'),
        ({"messages": ["hi"]}, "message 1 does not have exactly"),
        ({"messages": [_user(weight=0), _assistant()]}, "message 1 does not have exactly"),
        ({"messages": [_user(), {"role": "bot", "content": "a"}]}, "has the role 'bot'"),
        ({"messages": [_user(), {"role": [], "content": "a"}]}, "has the role"),
        ({"messages": [_user([{"type": "text"}]), _assistant()]}, "message 1 is a list, not text"),
        ({"messages": [_user(), _assistant("")]}, "message 2 is empty"),
        ({"messages": [_user()]}, "the last message is the user's"),
        ({"messages": [_assistant()]}, "no user message before the answer"),
        (
            {"messages": [_user(), {"role": "system", "content": "a"}, _assistant()]},
            "a system message is not the first message",
        ),
    ],
)
def test_a_row_of_no_use_is_refused_by_line(row: dict[str, Any], fact: str) -> None:
    with pytest.raises(DataError) as caught:
        row_to_messages(row, 17, "data.jsonl")
    assert caught.value.message.startswith("data.jsonl line 17: ")
    assert fact in caught.value.message
    assert caught.value.hint


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    with pytest.raises(DataError) as caught:
        row_to_messages({**PROMPT, "sytem": "x"}, 1, "data.jsonl")
    assert caught.value.hint == "did you mean 'system'?"
