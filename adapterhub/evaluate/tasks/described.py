"""A task that a `task.toml` describes: its rows, held to their digest, and how they are measured.

Knows no plugin and no engine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import USUAL_METRICS, Item, TaskData
from adapterhub.errors import FormatError, IntegrityError, NotFoundError, StorageError
from adapterhub.evaluate.tasks.files import drawn, reply_limit
from adapterhub.evaluate.tasks.rules import task_fault
from adapterhub.formats.rows import read_rows
from adapterhub.formats.task_file import TASK_FILE, TaskFile, decode_task
from adapterhub.formats.task_rows import row_to_item
from adapterhub.hub.paths import unsafe


def described_task(path: Path, *, limit: int | None = None, seed: int = 0) -> TaskData:
    """The task of a folder or of its task.toml, every row or `limit` of them drawn by `seed`.

    It is called NAME@VERSION. Raises FormatError naming the key that is wrong, IntegrityError where
    the rows are not those that it was written for, and DataError naming the line.
    """
    file = path / TASK_FILE if path.is_dir() else path
    described = decode_task(_read(file), name=str(file))
    reason = unsafe(described.rows)
    if reason:
        raise FormatError(
            f"{file}: rows: {described.rows!r} {reason}", hint="name a file beside it"
        )
    rows = file.parent / described.rows
    _check_digest(rows, described)
    found = [
        row_to_item(row, line, rows.name, kind=described.kind, chat=described.chat)
        for line, row in read_rows(rows)
    ]
    task = _task(described, found)
    fault = task_fault(task)
    if fault:
        raise FormatError(f"{file}: the task {described.name} {fault[0]}", hint=fault[1])
    return _task(described, found, drawn(found, limit, seed=seed))


def _task(described: TaskFile, every: list[Item], asked: list[Item] | None = None) -> TaskData:
    items = every if asked is None else asked
    # Of all items, so that a few of them are asked as they would be among the others.
    room = described.max_new_tokens or reply_limit(every)
    return TaskData(
        name=f"{described.name}@{described.version}",
        items=tuple(items),
        digest=_digest(described, items, room),
        max_new_tokens=room,
        metrics=described.metrics or USUAL_METRICS[described.kind],
        kind=described.kind,
        chat=described.chat,
        separator=described.separator,
        stop=described.stop,
        pattern=described.pattern,
    )


def _digest(described: TaskFile, items: list[Item], room: int) -> str:
    """sha256 over the items and what else decides a score. Which metrics are listed does not, nor
    does what the task is called."""
    return digest_of(
        {
            "items": [
                {
                    "messages": [[turn.role, turn.content] for turn in item.messages],
                    "answer": item.answer,
                    "choices": list(item.choices),
                    "right": item.right,
                    **({"adapter": item.adapter} if item.adapter is not None else {}),
                }
                for item in items
            ],
            "kind": described.kind,
            "chat": described.chat,
            "separator": described.separator,
            "max_new_tokens": room,
            "stop": list(described.stop),
            "pattern": described.pattern,
        }
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file {file}",
            hint=f"a task is a folder with a {TASK_FILE}, or a .jsonl file of rows",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{file} cannot be read: {error.strerror}", hint="check that it is a readable file"
        ) from error


def _check_digest(rows: Path, described: TaskFile) -> None:
    try:
        with rows.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file {rows}, which the task {described.name} asks about",
            hint=f"`rows` of {TASK_FILE} names a file beside it",
        ) from error
    except OSError as error:
        raise StorageError(
            f"{rows} cannot be read: {error.strerror}", hint="check that it is a readable file"
        ) from error
    if found != described.sha256:
        raise IntegrityError(
            f"{rows} is not what {described.name}@{described.version} was written for: "
            f"sha256 {found}",
            hint="fetch it again; or, if it was changed on purpose, give the task a new version "
            "and this sha256",
        )
