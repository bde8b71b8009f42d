"""`adapterhub list`."""

from __future__ import annotations

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.hub.client import installed
from adapterhub.hub.records import unreadable


@click.command("list", short_help="List the adapters on this machine.")
@json_option
def list_(*, as_json: bool) -> None:
    """List the adapters that were pulled to this machine."""
    out = Output(as_json=as_json)
    items = sorted(installed(), key=lambda item: (item.ref.id, item.pulled))
    out.data(
        [
            {
                "ref": str(item.ref),
                "id": item.ref.id,
                "remote": item.ref.remote,
                "commit": item.commit,
                "bytes": item.size,
                "pulled": item.pulled,
                "folder": str(item.folder),
            }
            for item in items
        ]
    )
    out.table(
        ("adapter", "revision", "from", "size", "pulled"),
        [
            (
                item.ref.id,
                item.commit[:7],
                item.ref.remote or "",
                megabytes(item.size),
                item.pulled[:10],
            )
            for item in items
        ],
    )
    damaged = unreadable()
    for name in damaged:
        out.say(f"not listed, for its record is damaged: {name}; adapterhub pull {name} mends it")
    if not items and not damaged:
        out.say("no adapter is on this machine yet")
        out.next("adapterhub search WORDS, then adapterhub pull user/name")
