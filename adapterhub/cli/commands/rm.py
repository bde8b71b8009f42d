"""`adapterhub rm`."""

from __future__ import annotations

import click

from adapterhub.cli.options import dry_run_option, yes_option
from adapterhub.cli.output import Output, confirm, megabytes
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import NotFoundError
from adapterhub.hub import client


@click.command(short_help="Remove a pulled adapter, or one from a remote.")
@click.argument("ref")
@click.option("--remote", "unpublish", is_flag=True, help="Remove it from its remote instead.")
@yes_option
@dry_run_option
def rm(ref: str, *, unpublish: bool, yes: bool, dry_run: bool) -> None:
    """Remove REF from this machine, or with --remote, with all its revisions from its remote.

    Unless REF names a remote, --remote means `local`.
    """
    out = Output()
    name = parse_ref(ref)
    if unpublish:
        place = client.published(name).remote
        what = f"{name.id} with all its revisions from {place.name} ({place.uri})"
        if dry_run:
            out.line(f"would remove {what}")
            return
        confirm(f"Remove {what}?", yes=yes)
        client.unpublish(name.on(place.name))
        out.line(f"removed {what}")
        return
    items = client.chosen(name)
    if not items:
        raise NotFoundError(f"{name} is not on this machine", hint="adapterhub list shows what is")
    for item in items:
        verb = "would remove" if dry_run else "removing"
        out.line(f"{verb} {item.ref.id}@{item.commit[:7]} ({megabytes(item.size)})")
    if dry_run:
        return
    confirm("Remove?" if len(items) == 1 else f"Remove {len(items)} revisions?", yes=yes)
    out.line(f"{megabytes(client.remove(name))} freed")
