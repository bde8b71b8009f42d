"""`adapterhub methods`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.plugin.catalog import Shelf, catalog


@click.command(short_help="List methods, trainers, strategies, tasks, destinations.")
@json_option
def methods(*, as_json: bool) -> None:
    """List everything that installed plugins offer, by kind."""
    out = Output(as_json=as_json)
    found = catalog()
    shelves: dict[str, Shelf[Any]] = {
        "methods": found.methods,
        "trainers": found.trainers,
        "backends": found.backends,
        "strategies": found.strategies,
        "tasks": found.tasks,
        "destinations": found.destinations,
    }
    out.data({kind: [_plain(entry) for entry in shelf] for kind, shelf in shelves.items()})
    for kind, shelf in shelves.items():
        rows = [(entry.record.name, entry.record.summary, str(entry.owner)) for entry in shelf]
        out.table((kind, "", "from"), rows)
        out.line()


def _plain(entry: Any) -> dict[str, Any]:
    record = asdict(entry.record)
    if "capabilities" in record:
        record["capabilities"] = sorted(record["capabilities"])
    return {**record, "plugin": str(entry.owner)}
