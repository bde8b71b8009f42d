"""`adapterhub methods`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.errors import NotFoundError
from adapterhub.plugin.catalog import Entry, Shelf, catalog

Shelves = Mapping[str, Shelf[Any]]
_FACTS = ("reference", "capabilities", "stored_as", "schemes", "modality")


@click.command(short_help="List what plugins offer, or the options of one.")
@click.argument("name", required=False)
@json_option
def methods(name: str | None, *, as_json: bool) -> None:
    """List everything that installed plugins offer, by kind; with NAME, what that one is and which
    options it takes."""
    out = Output(as_json=as_json)
    found = catalog()
    shelves: Shelves = {
        "methods": found.methods,
        "trainers": found.trainers,
        "backends": found.backends,
        "strategies": found.strategies,
        "tasks": found.tasks,
        "destinations": found.destinations,
    }
    if name is not None:
        _tell(name, shelves, out)
        return
    out.data({kind: [_plain(entry) for entry in shelf] for kind, shelf in shelves.items()})
    for kind, shelf in shelves.items():
        rows = [(entry.record.name, entry.record.summary, str(entry.owner)) for entry in shelf]
        out.table((kind, "", "from"), rows)
        out.line()
    out.next("adapterhub methods NAME")


def _tell(name: str, shelves: Shelves, out: Output) -> None:
    """What has this name, of whatever kind: a method and a trainer may share one."""
    named = [
        (shelf.kind, shelf.entries[name]) for shelf in shelves.values() if name in shelf.entries
    ]
    if not named:
        raise _unknown(name, shelves)
    out.data([{"kind": kind, **_plain(entry)} for kind, entry in named])
    for kind, entry in named:
        _describe(kind, entry, out)


def _describe(kind: str, entry: Entry[Any], out: Output) -> None:
    plain = _plain(entry)
    out.line(f"{kind} {plain['name']}: {plain['summary']}")
    for fact in _FACTS:
        value = plain.get(fact)
        if value:
            shown = ", ".join(value) if isinstance(value, list | tuple) else str(value)
            out.line(f"  {fact.replace('_', ' '):<12} {shown}")
    out.line(f"  {'from':<12} {plain['plugin']}")
    if kind not in ("method", "trainer"):
        return
    flag = "-O" if kind == "method" else "--trainer-option"
    if plain["options"]:
        out.table((f"{flag} KEY=VALUE", "default: meaning"), list(plain["options"].items()))
    else:
        out.line("  its record names no options")


def _unknown(name: str, shelves: Shelves) -> NotFoundError:
    for shelf in shelves.values():
        if name in shelf.taken:
            shelf[name]  # raises, naming both owners
    known = sorted({known for shelf in shelves.values() for known in shelf.entries})
    close = difflib.get_close_matches(name, known, n=1)
    return NotFoundError(
        f"no method, trainer, backend, strategy or task is called {name!r}",
        hint=f"did you mean {close[0]!r}?" if close else "`adapterhub methods` lists them all",
    )


def _plain(entry: Entry[Any]) -> dict[str, Any]:
    record = asdict(entry.record)
    if "capabilities" in record:
        record["capabilities"] = sorted(record["capabilities"])
    return {**record, "plugin": str(entry.owner)}
