"""`adapterhub search`."""

from __future__ import annotations

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.hub.client import search as search_remotes


@click.command(short_help="Find adapters on the remotes.")
@click.argument("words", nargs=-1)
@click.option("--remote", metavar="NAME", help="Ask this remote only.")
@click.option("--base", metavar="ID", help="Only adapters for this base, such as owner/model.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most so many from each remote.",
)
@json_option
def search(
    words: tuple[str, ...], remote: str | None, base: str | None, limit: int, *, as_json: bool
) -> None:
    """Find adapters whose name, method, base or tags hold all WORDS; without words, all."""
    out = Output(as_json=as_json)
    found = search_remotes(" ".join(words), remote=remote, base=base, limit=limit, note=out.say)
    out.data(
        [
            {
                "id": item.summary.id,
                "remote": item.remote.name,
                "commit": item.summary.commit,
                "method": item.summary.method,
                "base": item.summary.base,
                "updated": item.summary.updated,
                "tags": list(item.summary.tags),
            }
            for item in found
        ]
    )
    out.table(
        ("adapter", "remote", "method", "base", "updated"),
        [
            (
                item.summary.id,
                item.remote.name,
                item.summary.method or "unknown",
                item.summary.base or "unknown",
                (item.summary.updated or "")[:10],
            )
            for item in found
        ],
    )
    if found:
        out.next(f"adapterhub show {found[0].remote.name}:{found[0].summary.id}")
    else:
        out.say("nothing found")
