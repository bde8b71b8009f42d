"""What people and scripts see: data on stdout, talk on stderr, one place for both.

Rich is imported at first use, so that help and errors do not pay for it.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from adapterhub.errors import AdapterhubError, UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

_NO_WIDTH = 100_000
# What a terminal obeys instead of showing (C0 and C1 controls), what turns the direction of
# writing, and what no terminal can be sent at all.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """One value on one line: others chose its letters, so none may move the cursor or hide."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _lines(text: str) -> str:
    """Whole lines, such as a model's answer: line breaks and tabs stay."""
    return re.sub(r"[^\n\t]+", lambda found: printable(found[0]), text)


class Output:
    """One command's voice. With `as_json`, stdout carries exactly one JSON document."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def console(self) -> Console:
        """For data people read, on stdout; quiet when stdout carries JSON."""
        from rich.console import Console

        return Console(quiet=self.as_json, highlight=False, soft_wrap=True)

    @cached_property
    def talk(self) -> Console:
        """For progress and remarks, on stderr."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def data(self, value: Any) -> None:
        """The JSON document, when one was asked for."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False))

    def line(self, text: str = "") -> None:
        """One line of data for people, free of markup."""
        if not self.as_json:
            click.echo(_lines(text))

    def say(self, text: str) -> None:
        """One line of talk."""
        click.echo(_lines(text), err=True)

    def next(self, command: str) -> None:
        """The next useful command, which ends everything."""
        if not self.as_json:
            click.echo(f"next: {printable(command)}", err=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns, wide characters included."""
        if self.as_json:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=bool(rows), header_style="dim")
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.drawing(table)

    def drawing(self, drawn: RenderableType) -> None:
        """What rich draws, whose words are printable."""
        if self.as_json:
            return
        if self.console.is_terminal:
            self.console.print(drawn)
            return
        from rich.console import Console

        # A pipe has no width to fold a name at, and whoever reads it wants no padding.
        endless = Console(file=io.StringIO(), width=_NO_WIDTH, highlight=False)
        with endless.capture() as captured:
            endless.print(drawn)
        for line in captured.get().splitlines():
            click.echo(line.rstrip())

    @contextmanager
    def progress(self, *, unit: str) -> Iterator[Progress]:
        """A bar on stderr with rate and time left; plain silence where stderr is no terminal."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        def whole() -> Column:
            return Column(no_wrap=True)

        counts = (
            [DownloadColumn(table_column=whole()), TransferSpeedColumn(table_column=whole())]
            if unit == "bytes"
            else [
                TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit, table_column=whole()),
                TextColumn("{task.fields[note]}", markup=False, table_column=whole()),
            ]
        )
        with Progress(
            TextColumn("  {task.description}", markup=False, table_column=whole()),
            BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
            *counts,
            TimeRemainingColumn(compact=True),
            console=self.talk,
            disable=not sys.stderr.isatty(),
            transient=False,
            expand=True,
        ) as bar:
            yield bar


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost. Raises UsageError where nobody is there to answer, and
    AdapterhubError on no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "this asks before it removes anything, and nobody is there to answer",
            hint="look with --dry-run, then add -y",
        )
    if not click.confirm(printable(question), err=True):
        raise AdapterhubError("nothing was removed", hint="-y removes without asking")


def megabytes(count: int) -> str:
    """Bytes for people: 934 B, 4.9 MB, 1.2 GB."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
