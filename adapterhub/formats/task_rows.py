"""One row of a task's file as an item, by the kind of the task.

Beside the rows of `formats.rows`: choices, and raw text. Knows no file and no metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from adapterhub.domain.evaluation import Item, Kind
from adapterhub.errors import DataError
from adapterhub.formats.rows import checked_text, row_adapter, row_to_messages

_CHOICE = (
    'a row is {"prompt": "...", "choices": ["...", "..."], "answer": 0}, its answer the index or '
    'the text of the right choice; "messages" may stand for "prompt"'
)
_RAW = 'raw text has no roles: a row is {"prompt": "...", "completion": "..."}'
_TEXT = 'a row is {"text": "..."}, or {"prompt": "...", "completion": "..."}'


def row_to_item(row: Mapping[str, Any], line: int, name: str, *, kind: Kind, chat: bool) -> Item:
    """Raises DataError as `name line N: what is wrong`."""
    where = f"{name} line {line}"
    if not chat and ("messages" in row or "system" in row):
        raise DataError(f"{where}: messages, where `chat` is false", hint=_RAW)
    if kind == "choice":
        item = _choice_item(row, line, name)
    elif kind == "likelihood" and not chat and "text" in row:
        item = _text_item(row, where)
    else:
        messages, answer = row_to_messages(row, line, name)
        item = Item(messages=messages, answer=answer)
    return replace(item, adapter=row_adapter(row, line, name))


def _choice_item(row: Mapping[str, Any], line: int, name: str) -> Item:
    where = f"{name} line {line}"
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or len(choices) < 2:
        _refuse(where, '"choices" is not a list of two or more')
    for number, choice in enumerate(choices, start=1):
        checked_text(choice, f"choice {number}", where, hint=_CHOICE)
    right = choices.index(answer) if isinstance(answer, str) and answer in choices else answer
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
        _refuse(where, f'"answer" is {answer!r}, neither a choice nor the index of one')
    # As a row with its answer, so that what is asked is held to the same rules.
    messages, _ = row_to_messages(_answered(row, choices[right], where), line, name)
    if messages[-1].role != "user":
        _refuse(where, f"the last message is the {messages[-1].role}'s, not the user's")
    return Item(messages=messages, answer=choices[right], choices=tuple(choices), right=right)


def _answered(row: Mapping[str, Any], answer: str, where: str) -> dict[str, Any]:
    rest = {key: value for key, value in row.items() if key not in ("choices", "answer")}
    if "completion" in rest:
        _refuse(where, 'both "choices" and "completion" are there')
    if "messages" not in rest:
        return {**rest, "completion": answer}
    messages = rest["messages"]
    if not isinstance(messages, list) or not messages:
        _refuse(where, '"messages" is not a list with messages')
    return {**rest, "messages": [*messages, {"role": "assistant", "content": answer}]}


def _text_item(row: Mapping[str, Any], where: str) -> Item:
    if "prompt" in row or "completion" in row:
        raise DataError(f'{where}: both "text" and "prompt" or "completion" are there', hint=_TEXT)
    return Item(messages=(), answer=checked_text(row["text"], '"text"', where, hint=_TEXT))


def _refuse(where: str, fact: str) -> NoReturn:
    raise DataError(f"{where}: {fact}", hint=_CHOICE)
