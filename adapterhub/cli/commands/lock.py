"""`adapterhub lock`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.options import dry_run_option, json_option
from adapterhub.cli.output import Output
from adapterhub.domain.lock import LOCK_FILE, Lock, LockedAdapter
from adapterhub.domain.match import base_text
from adapterhub.errors import NotFoundError
from adapterhub.hub import project


@click.command(short_help="Pin all a project wants, as it is now.")
@click.option(
    "--accept",
    multiple=True,
    metavar="NAME",
    help="Go on though the repository of this one was replaced, or its history.",
)
@dry_run_option
@json_option
def lock(*, accept: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Pin every adapter of ./adapters.toml in ./adapters.lock.

    The lock holds its repository, its commit, the sha256 of each file, its base, and the plugins it
    needs. Each is pulled and verified first.
    """
    out = Output(as_json=as_json)
    from adapterhub.models.bases import find_base

    here = Path()
    with project.changing(here):
        wanted, before = project.read_wanted(here), project.read_lock(here) or Lock()
        _check_accepted(accept, before)
        after = project.lock_wanted(
            wanted,
            before,
            fetch=lambda ref: pull_with_bar(ref, out),
            find_base=find_base,
            keep=False,
            accept=accept,
        )
        if not dry_run:
            project.write_lock_file(here, after)
    changes = list(_changes(before, after))
    out.data(
        {
            "file": LOCK_FILE,
            "adapters": [
                {
                    "name": item.name,
                    "ref": item.adapter.ref,
                    "remote": item.adapter.remote,
                    "commit": item.adapter.commit,
                    "base": item.base.id,
                }
                for item in after.adapters
            ],
            "changes": [{"name": name, "change": change} for name, change in changes],
        }
    )
    for name, change in changes:
        out.line(f"{name}   {change}")
    count = len(after.adapters)
    state = "would hold" if dry_run else "holds"
    out.line(f"{LOCK_FILE} {state} {count} adapter{'s' * (count != 1)}")
    out.next("drop --dry-run to write it" if dry_run else _next(before, after))


def _check_accepted(accept: tuple[str, ...], before: Lock) -> None:
    for name in accept:
        if before.find(name) is None:
            known = ", ".join(item.name for item in before.adapters) or "none"
            raise NotFoundError(f"{LOCK_FILE} has no adapter {name!r}", hint=f"it has: {known}")


def _changes(before: Lock, after: Lock) -> Iterator[tuple[str, str]]:
    for item in after.adapters:
        old = before.find(item.name)
        if old is None:
            yield item.name, f"new, at {item.adapter.commit[:7]}"
        elif old != item:
            yield item.name, _change(old, item)
    for item in before.adapters:
        if after.find(item.name) is None:
            yield item.name, "no longer wanted"


def _change(old: LockedAdapter, new: LockedAdapter) -> str:
    if old.adapter.ref != new.adapter.ref or old.adapter.remote != new.adapter.remote:
        return f"{_place(old)} became {_place(new)}"
    if old.adapter.commit != new.adapter.commit:
        return f"{old.adapter.commit[:7]} became {new.adapter.commit[:7]}"
    if old.base != new.base:
        return f"its base {base_text(old.base)} became {base_text(new.base)}"
    return "its plugins, or what was asked for, changed"


def _place(item: LockedAdapter) -> str:
    return f"{item.adapter.remote}:{item.adapter.ref}@{item.adapter.commit[:7]}"


def _next(before: Lock, after: Lock) -> str:
    """What changed in the first adapter that moved, or the obvious."""
    for item in after.adapters:
        old = before.find(item.name)
        if (
            old
            and old.adapter.ref == item.adapter.ref
            and old.adapter.commit != item.adapter.commit
        ):
            name = f"{item.adapter.remote}:{item.adapter.ref}"
            return f"adapterhub diff {name}@{old.adapter.commit} {name}@{item.adapter.commit}"
    return "adapterhub sync --frozen"
