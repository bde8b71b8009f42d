"""Say on stderr what is asked of each plugin, what it answers and how long that takes.

Silent unless ADAPTERHUB_TRACE_PLUGINS is set. Asks no stranger's object to describe itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

TRACE_VARIABLE = "ADAPTERHUB_TRACE_PLUGINS"
_OFF = ("", "0")

Say = Callable[[str], None]


def tell(who: object, what: str, *, seconds: float | None = None) -> None:
    """One line: who, what and perhaps the time."""
    if os.environ.get(TRACE_VARIABLE, "") in _OFF or sys.stderr is None:
        return
    took = "" if seconds is None else f"  {seconds * 1000:.1f} ms"
    sys.stderr.write(f"plugins: {_plain(str(who))}: {_plain(what)}{took}\n")


@contextmanager
def timed(who: object, what: str) -> Iterator[Say]:
    """Tell of a step when it ends: what it led to, as the block says, or what it raised."""
    answers: list[str] = []
    started = time.perf_counter()
    try:
        yield answers.append
    except BaseException as error:
        tell(who, f"{what} raised {type(error).__name__}", seconds=time.perf_counter() - started)
        raise
    tell(who, " -> ".join([what, *answers]), seconds=time.perf_counter() - started)


def names_of(records: Iterable[Any], of: type) -> str:
    """`Method lora, Method qlora`, or the types of what no record is."""
    found = []
    for record in records:
        name = record.name if isinstance(record, of) else None  # type: ignore[attr-defined]
        found.append(
            f"{type(record).__name__} {name}" if type(name) is str else type(record).__name__
        )
    return ", ".join(found) or "nothing"


def _plain(text: str) -> str:
    """On one line, whatever letters a stranger chose."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
