"""`adapterhub sync`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.fetching import pull_with_bar, transfer_bar
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.lock import LOCK_FILE, Lock, disagreement
from adapterhub.errors import MismatchError
from adapterhub.hub import project
from adapterhub.hub.surroundings import check_bases, plugin_remarks
from adapterhub.hub.sync import Synced, write_folders
from adapterhub.hub.sync import sync as sync_lock

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec


@click.command(short_help="Bring exactly the locked adapters here.")
@click.option(
    "--frozen", is_flag=True, help="Refuse when the lock is not up to date; never write it."
)
@click.option("--offline", is_flag=True, help="Ask no remote: everything must be in the cache.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also copy each adapter to DIR/NAME.",
)
@click.option("--overwrite", is_flag=True, help="Replace adapters in DIR that are not the locked.")
@json_option
def sync(*, frozen: bool, offline: bool, into: Path | None, overwrite: bool, as_json: bool) -> None:
    """Bring the bytes that ./adapters.lock names to this machine, each file's sha256 checked.

    What ./adapters.toml wants and the lock has not is locked first; what is locked stays as it is.
    """
    out = Output(as_json=as_json)
    here = Path()
    with project.changing(here):
        lock = _lock(here, out, frozen=frozen, offline=offline)
        remarks = [*check_bases(lock, _bases(lock)), *plugin_remarks(lock)]
        with transfer_bar(out) as on_progress:
            synced = sync_lock(lock, offline=offline, on_progress=on_progress, note=out.say)
        folders = {one.locked.name: one.folder for one in synced}
        if into is not None:
            folders = write_folders(synced, into, overwrite=overwrite)
        changed = not frozen and project.write_lock_file(here, lock)
    out.data(
        {
            "adapters": [_json(one, folders[one.locked.name]) for one in synced],
            "lock_changed": changed,
            "notes": remarks,
        }
    )
    for one in synced:
        _show(one, folders[one.locked.name], out)
    for remark in remarks:
        out.say(f"note: {remark}")
    if synced:
        out.next(f'adapterhub run {synced[0].locked.adapter.exact} "..."')


def _lock(here: Path, out: Output, *, frozen: bool, offline: bool) -> Lock:
    """The lock as it is, or, unless that is forbidden, with what is wanted beside it."""
    wanted, lock = project.read_wanted(here), project.read_lock(here)
    problem = f"there is no {LOCK_FILE} here" if lock is None else disagreement(wanted, lock)
    if lock is not None and problem is None:
        return lock
    if frozen or offline:
        raise MismatchError(problem or "", hint="adapterhub lock, where the network may be used")
    from adapterhub.models.bases import find_base

    return project.lock_wanted(
        wanted, lock, fetch=lambda ref: pull_with_bar(ref, out), find_base=find_base, keep=True
    )


def _bases(lock: Lock) -> list[BaseSpec]:
    """The bases here. Raises FormatError for one that the lock needs and whose spec is broken."""
    from adapterhub.models.bases import broken_bases, find_base, list_bases

    broken = broken_bases()
    for item in lock.adapters:
        if item.wanted.base in broken:
            find_base(item.wanted.base)
    return list_bases()


def _json(one: Synced, folder: Path) -> dict[str, object]:
    adapter = one.locked.adapter
    return {
        "name": one.locked.name,
        "ref": str(adapter.exact),
        "commit": adapter.commit,
        "folder": str(folder),
        "files": len(adapter.files),
        "bytes": sum(file.size for file in adapter.files),
        "downloaded_bytes": one.downloaded_bytes,
    }


def _show(one: Synced, folder: Path, out: Output) -> None:
    adapter = one.locked.adapter
    size = megabytes(sum(file.size for file in adapter.files))
    came = f"{megabytes(one.downloaded_bytes)} fetched" if one.downloaded_bytes else "already here"
    more = f" and {len(one.locked.members)} members" if one.locked.members else ""
    count = f"{len(adapter.files)} files{more}"
    ref = f"{adapter.ref}@{adapter.commit[:7]}"
    out.line(f"{one.locked.name}   {ref} · {count}, {size}, as locked · {came}")
    out.line(f"  {folder}")
