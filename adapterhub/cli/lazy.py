"""A click group whose commands are imported only when they run.

The table holds what the list of commands shows; everything else comes from the command itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module

import click

from adapterhub.errors import UsageError


class LazyGroup(click.Group):
    """`table` maps a command's name to (module:attribute, one-line summary)."""

    def __init__(
        self, *args: object, table: Mapping[str, tuple[str, str]], **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.table and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.table, n=1)
            raise UsageError(
                f"there is no command {args[0]!r}",
                hint=f"did you mean {close[0]!r}?" if close else "adapterhub --help lists them",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.table.items()])
