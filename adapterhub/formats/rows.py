"""Read training and evaluation rows: a JSON Lines file in, messages and an answer out.

Knows nothing of tokens, templates or tasks. A row is `{"messages": [...]}` with the answer as its
last message, or `{"prompt": ..., "completion": ...}` with an optional "system". "adapter" names
who is to answer; other keys, such as an id, are left alone unless they look like a slip of these.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError, NotFoundError, StorageError

Role = Literal["system", "user", "assistant"]

KEYS = ("messages", "prompt", "completion", "system")
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
FORMS = (
    'a row is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}]} '
    'or {"prompt": "...", "completion": "..."}'
)
_BOM = b"\xef\xbb\xbf"


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Every row with its line number, counted from 1; blank lines are skipped.

    Raises NotFoundError, StorageError, or DataError for a line that is not one JSON object in
    UTF-8 (a byte order mark is fine) and for a file without rows. What the object holds is
    checked by `row_to_messages`.
    """
    rows = [
        (number, _parse(line, number, path.name)) for number, line in _lines(path) if line.strip()
    ]
    if not rows:
        raise DataError(f"{path.name} has no rows", hint=FORMS)
    return rows


def row_to_messages(
    row: Mapping[str, Any], line: int, name: str
) -> tuple[tuple[Message, ...], str]:
    """(messages before the answer, answer). Raises DataError as `name line N: what is wrong`."""
    where = f"{name} line {line}"
    _check_keys(row, where)
    if "messages" in row:
        turns = _chat_turns(row["messages"], where)
    elif "prompt" in row and "completion" in row:
        turns = _prompt_turns(row, where)
    else:
        _refuse(where, 'neither "messages" nor "prompt" with "completion" is there')
    _check_order([turn.role for turn in turns], where)
    return tuple(turns[:-1]), turns[-1].content


def row_adapter(row: Mapping[str, Any], line: int, name: str) -> str | None:
    """The adapter that is to answer this row, None where it names none. Raises DataError for what
    is no name."""
    if row.get("adapter") is None:
        return None
    return checked_text(row["adapter"], '"adapter"', f"{name} line {line}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    # Split at \n only: str.splitlines would also cut at characters that JSON strings may hold.
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.removeprefix(_BOM) if number == 1 else line
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file {path}", hint="check the path; rows are read from a .jsonl file"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}", hint="check that it is a readable file"
        ) from error


def _parse(line: bytes, number: int, name: str) -> dict[str, Any]:
    where = f"{name} line {number}"
    try:
        row = json.loads(
            line.decode(), object_pairs_hook=_without_repeats, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8", hint=f"save {name} as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply", hint=FORMS) from error
    except ValueError as error:
        cause = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{where}: not JSON: {cause}",
            hint="each line is one whole JSON object; the line may be cut off",
        ) from error
    if not isinstance(row, dict):
        _refuse(where, f"{_kind(row)}, not an object")
    return row


def _without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _check_keys(row: Mapping[str, Any], where: str) -> None:
    if "messages" in row and ("prompt" in row or "completion" in row):
        _refuse(where, 'both "messages" and "prompt" or "completion" are there')
    for key in row:
        # A misspelt "system" would be dropped in silence and change every prompt.
        close = difflib.get_close_matches(key.lower(), KEYS, n=1, cutoff=0.85)
        if close and key not in KEYS:
            raise DataError(
                f"{where}: the key {key!r} is not known", hint=f"did you mean {close[0]!r}?"
            )


def _chat_turns(messages: Any, where: str) -> list[Message]:
    if not isinstance(messages, list) or not messages:
        _refuse(where, '"messages" is not a list with messages')
    return [_turn(message, index, where) for index, message in enumerate(messages, start=1)]


def _turn(message: Any, index: int, where: str) -> Message:
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        _refuse(where, f'message {index} does not have exactly "role" and "content"')
    role = message["role"]
    if role not in ROLES:
        raise DataError(
            f"{where}: message {index} has the role {role!r}", hint=f"roles: {', '.join(ROLES)}"
        )
    return Message(role=role, content=checked_text(message["content"], f"message {index}", where))


def _prompt_turns(row: Mapping[str, Any], where: str) -> list[Message]:
    keys = {"system": "system", "prompt": "user", "completion": "assistant"}
    return [
        Message(role=cast("Role", role), content=checked_text(row[key], f'"{key}"', where))
        for key, role in keys.items()
        if key in row
    ]


def checked_text(value: Any, what: str, where: str, *, hint: str = FORMS) -> str:
    """A text with something in it. Raises DataError as `where: what is ...`."""
    if not isinstance(value, str):
        raise DataError(f"{where}: {what} is {_kind(value)}, not text", hint=hint)
    if not value.strip():
        raise DataError(f"{where}: {what} is empty", hint=hint)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{where}: {what} holds half a character (a lone surrogate)", hint=hint)
    return value


def _check_order(roles: list[str], where: str) -> None:
    if roles[-1] != "assistant":
        _refuse(where, f"the last message is the {roles[-1]}'s, not the assistant's answer")
    if "system" in roles[1:]:
        _refuse(where, "a system message is not the first message")
    if "user" not in roles:
        _refuse(where, "there is no user message before the answer")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")


def _refuse(where: str, fact: str) -> NoReturn:
    raise DataError(f"{where}: {fact}", hint=FORMS)
