"""The bytes of `task.toml`: what is measured on which rows, and how.

Knows the file's keys and their types; whether its rows and metrics fit each other is for the
reader of the rows.
"""

from __future__ import annotations

import difflib
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from adapterhub.domain.digest import is_sha256
from adapterhub.domain.evaluation import Kind, Metric
from adapterhub.errors import FormatError
from adapterhub.formats.schema import to_domain
from adapterhub.formats.strict_toml import loads_toml

TASK_FILE = "task.toml"
_SUM = "it is what `sha256sum` says of the file of rows"
_HINT = "correct it; the README shows a whole task.toml"
# Read as they are, line ends and all; everything else may be shown on a screen.
_TEXTS = ("pattern", "separator")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFile:
    """`rows` is a file beside this one, `sha256` that of its bytes. Without `metrics` those that
    are usual for the kind are measured, without `max_new_tokens` an answer may be a little longer
    than the longest expected one. The rest is as in `TaskData`."""

    name: str
    version: str
    kind: Kind
    rows: str
    sha256: str
    description: str = ""
    metrics: tuple[Metric, ...] = ()
    max_new_tokens: int | None = None
    pattern: str | None = None
    stop: tuple[str, ...] = ()
    chat: bool = True
    separator: str = " "
    license: str | None = None
    source: str | None = None


def decode_task(data: bytes, *, name: str = TASK_FILE) -> TaskFile:
    """Raises FormatError naming file and key, with a suggestion for a key that is not known."""
    table = loads_toml(data, name=name, hint=_HINT)
    _check_keys(table, name)
    texts: dict[str, Any] = {
        key: _text(table.pop(key), key, name) for key in _TEXTS if key in table
    }
    stop = table.pop("stop", [])
    if not isinstance(stop, list):
        raise FormatError(f"{name}: stop: not a list", hint=r'such as stop = ["\n"]')
    stops = tuple(_text(text, "stop", name) for text in stop)
    task = replace(to_domain(table, TaskFile, name=name), stop=stops, **texts)
    for key in ("name", "version"):
        value = getattr(task, key)
        if not value.strip() or "@" in value:
            raise FormatError(f"{name}: {key}: {value!r} names nothing", hint=_HINT)
    if not is_sha256(task.sha256):
        raise FormatError(f"{name}: sha256: not 64 hexadecimal digits", hint=_SUM)
    return task


def _check_keys(table: dict[str, Any], name: str) -> None:
    known = [field.name for field in fields(TaskFile)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key.lower(), known, n=1)
            raise FormatError(
                f"{name}: the key {key!r} is not known",
                hint=f"did you mean {close[0]!r}?" if close else f"keys: {', '.join(known)}",
            )
    for field in fields(TaskFile):
        if field.default is MISSING and field.name not in table:
            raise FormatError(
                f"{name}: the key {field.name!r} is missing",
                hint=_SUM if field.name == "sha256" else _HINT,
            )


def _text(value: Any, key: str, name: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{name}: {key}: not a text", hint=_HINT)
    return value
