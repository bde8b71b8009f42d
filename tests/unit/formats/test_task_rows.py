"""Rows of a task: choices, and raw text, each with its line where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.domain.evaluation import Item, Kind, Message
from adapterhub.errors import DataError
from adapterhub.formats.task_rows import row_to_item

ASKED = (Message(role="user", content="q"),)


def item(row: dict[str, Any], kind: Kind = "choice", *, chat: bool = True) -> Item:
    return row_to_item(row, 7, "items.jsonl", kind=kind, chat=chat)


@pytest.mark.parametrize("answer", [1, "b"])
def test_the_right_choice_is_an_index_or_a_text(answer: int | str) -> None:
    row = {"prompt": "q", "choices": ["a", "b"], "answer": answer, "id": 3}
    assert item(row) == Item(messages=ASKED, answer="b", choices=("a", "b"), right=1)


def test_choices_that_read_like_numbers_are_texts_first() -> None:
    assert item({"prompt": "q", "choices": ["1", "0"], "answer": "0"}).right == 1


def test_equal_choices_are_told_apart_by_their_index() -> None:
    assert item({"prompt": "q", "choices": ["a", "a"], "answer": 1}).right == 1


def test_choices_follow_a_conversation() -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
    ]
    found = item({"messages": turns, "choices": ["a", "b"], "answer": 0})
    assert [turn.role for turn in found.messages] == ["system", "user"]
    assert item({"system": "s", "prompt": "q", "choices": ["a", "b"], "answer": 0}) == found


def test_raw_text_is_a_prompt_and_what_continues_it_or_all_of_it() -> None:
    pair = {"prompt": "q", "completion": "a"}
    assert item(pair, "generate", chat=False) == Item(messages=ASKED, answer="a")
    assert item(pair, "likelihood", chat=False) == Item(messages=ASKED, answer="a")
    assert item({"text": "all"}, "likelihood", chat=False) == Item(messages=(), answer="all")


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ({"prompt": "q", "answer": 0}, '"choices" is not a list of two or more'),
        ({"prompt": "q", "choices": ["a"], "answer": 0}, '"choices" is not a list of two or more'),
        ({"prompt": "q", "choices": ["a", " "], "answer": 0}, "choice 2 is empty"),
        ({"prompt": "q", "choices": ["a", 2], "answer": 0}, "choice 2 is a number, not text"),
        ({"prompt": "q", "choices": ["a", "b"]}, '"answer" is None'),
        ({"prompt": "q", "choices": ["a", "b"], "answer": 2}, '"answer" is 2'),
        ({"prompt": "q", "choices": ["a", "b"], "answer": -1}, '"answer" is -1'),
        ({"prompt": "q", "choices": ["a", "b"], "answer": True}, '"answer" is True'),
        ({"prompt": "q", "choices": ["a", "b"], "answer": "c"}, "\"answer\" is 'c'"),
        (
            {"prompt": "q", "completion": "a", "choices": ["a", "b"], "answer": 0},
            'both "choices" and "completion"',
        ),
        ({"choices": ["a", "b"], "answer": 0}, 'neither "messages" nor "prompt"'),
        ({"messages": [], "choices": ["a", "b"], "answer": 0}, "not a list with messages"),
        (
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "x"},
                ],
                "choices": ["a", "b"],
                "answer": 0,
            },
            "the last message is the assistant's",
        ),
    ],
)
def test_a_wrong_row_of_choices_is_named_with_its_line(row: dict[str, Any], fact: str) -> None:
    with pytest.raises(DataError) as caught:
        item(row)
    assert caught.value.message.startswith("items.jsonl line 7: ")
    assert fact in caught.value.message


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ({"messages": [{"role": "user", "content": "q"}]}, "messages, where `chat` is false"),
        ({"system": "s", "prompt": "q", "completion": "a"}, "messages, where `chat` is false"),
        ({"text": "t", "prompt": "q"}, 'both "text" and "prompt"'),
        ({"text": " "}, '"text" is empty'),
    ],
)
def test_a_wrong_row_of_raw_text_is_named_with_its_line(row: dict[str, Any], fact: str) -> None:
    with pytest.raises(DataError, match=r"^items\.jsonl line 7: ") as caught:
        item(row, "likelihood", chat=False)
    assert fact in caught.value.message


def test_a_text_alone_is_for_likelihoods_of_raw_text_only() -> None:
    for kind, chat in (("generate", False), ("likelihood", True)):
        with pytest.raises(DataError):
            item({"text": "t"}, kind, chat=chat)  # type: ignore[arg-type]
