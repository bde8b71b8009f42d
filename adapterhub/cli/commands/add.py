"""`adapterhub add`."""

from __future__ import annotations

from pathlib import Path

import click

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.domain.lock import LOCK_FILE, WANTED_FILE, Wanted
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import NotFoundError
from adapterhub.hub import project


@click.command(short_help="Note an adapter that a project wants, and lock it.")
@click.argument("ref")
@click.option("--name", metavar="NAME", help="What the project calls it; default: its own name.")
@click.option("--base", "base_name", metavar="NAME", help="The base it is to run on.")
@click.option("--allow", multiple=True, metavar="CODE", help="Accept this problem of it.")
@json_option
def add(
    *, ref: str, name: str | None, base_name: str | None, allow: tuple[str, ...], as_json: bool
) -> None:
    """Note REF in ./adapters.toml and what it is now in ./adapters.lock.

    A revision or a remote in REF is kept: without one, `adapterhub lock` takes the newest.
    """
    out = Output(as_json=as_json)
    parsed = parse_ref(ref)
    wanted = Wanted(
        ref=parsed.id,
        revision=parsed.revision,
        remote=parsed.remote,
        base=base_name,
        allow=tuple(sorted(set(allow))),
    )
    called = name or parsed.name
    from adapterhub.models.bases import find_base

    here = Path()
    with project.changing(here):
        lock = project.add(
            here,
            called,
            wanted,
            fetch=lambda one: pull_with_bar(one, out),
            find_base=find_base,
        )
    locked = lock.find(called)
    if locked is None:
        raise NotFoundError(f"{called} is not in {LOCK_FILE}", hint="adapterhub lock")
    out.data(
        {
            "name": called,
            "ref": locked.adapter.ref,
            "remote": locked.adapter.remote,
            "commit": locked.adapter.commit,
            "base": locked.base.id,
            "members": [str(member.exact) for member in locked.members],
        }
    )
    out.line(
        f"{called}   {locked.adapter.ref}@{locked.adapter.commit[:7]} from "
        f"{locked.adapter.remote}, in {WANTED_FILE} and {LOCK_FILE}"
    )
    out.next("adapterhub sync")
