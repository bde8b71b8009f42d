"""The adapters on this machine: one read-only folder per commit, made from verified objects.

A folder appears whole or not at all, and is hashed again whenever it is used. Asks no remote
anything; what to fetch is decided by the client.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot, Store
from adapterhub.errors import StorageError
from adapterhub.hub.files import (
    delete_tree,
    digests,
    disk,
    is_regular,
    link_or_copy,
    make_folder,
    regular_files,
    sweep_folder,
    sync_folder,
    workspace,
)
from adapterhub.hub.home import cache_dir
from adapterhub.hub.leftovers import DAY, clear_abandoned
from adapterhub.hub.locks import Note, lock
from adapterhub.hub.objects import Progress, fetch, mismatch, object_path, parts_dir
from adapterhub.hub.records import (
    Cached,
    Record,
    as_cached,
    every,
    folder_for,
    is_commit,
    new_record,
    read,
    record_path,
    write,
)
from adapterhub.hub.remotes import Remote


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A verified folder, and what it took to have it."""

    cached: Cached
    downloaded_bytes: int
    from_cache: bool


def ensure(
    remote: Remote,
    store: Store,
    snapshot: Snapshot,
    files: Sequence[FileEntry],
    *,
    on_progress: Progress | None = None,
    note: Note | None = None,
) -> Held:
    """The folder of a snapshot with these files, made or repaired if need be."""
    ref = snapshot.ref
    folder = folder_for(remote.uri, ref, snapshot.commit)
    sweep()
    lock_name = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
    with lock(cache_dir() / "locks" / f"{lock_name}.lock", what=ref.id, note=note):
        existing = read(folder)
        problem = None if existing is None else _stale(existing, folder, snapshot, files)
        if existing is not None and problem is None:
            return Held(cached=as_cached(existing, folder), downloaded_bytes=0, from_cache=True)
        fetched = [
            fetch(store, snapshot, entry, progress=on_progress, note=note) for entry in files
        ]
        entries = tuple(
            replace(entry, sha256=got.sha256) for entry, got in zip(files, fetched, strict=True)
        )
        record = new_record(remote, snapshot, entries)
        with workspace(cache_dir() / "tmp") as work:
            made = _materialise(work / "new", entries, [got.path for got in fetched])
            _retire(folder, work / "old", problem, ref, note)
            _put(made, folder, record)
    downloaded = sum(got.downloaded for got in fetched)
    return Held(cached=as_cached(record, folder), downloaded_bytes=downloaded, from_cache=False)


def cached() -> list[Cached]:
    """Everything on this machine, by name; `records.unreadable` names what is left out."""
    return sorted(every(), key=lambda item: (item.ref.id, item.pulled, item.commit))


def find(uris: Sequence[str], ref: Ref) -> Cached | None:
    """The folder of an exact commit from one of these places, if it is here."""
    if ref.revision is None or not is_commit(ref.revision):
        return None
    with contextlib.suppress(StorageError):  # a cache that is read-only is of use all the same
        sweep()
    for uri in uris:
        folder = folder_for(uri, ref, ref.revision)
        record = read(folder)
        if record is not None:
            return as_cached(record, folder)
    return None


def damage(item: Cached) -> str | None:
    """Hash every file. Returns what is wrong with the first bad one, None if all is well."""
    found = regular_files(item.folder) if item.folder.is_dir() else {}
    promised = {entry.path: entry for entry in item.files}
    for path in sorted(found.keys() | promised.keys()):
        if path not in promised:
            return f"{path} does not belong there"
        if path not in found or not is_regular(found[path]):
            return f"{path} is missing"
        difference = mismatch(promised[path], digests(found[path]))
        if difference is not None:
            return f"{path} has {difference}"
    return None


def remove(item: Cached) -> int:
    """Delete a folder and the objects nothing else uses. Returns the bytes that were freed."""
    lock_name = hashlib.sha256(str(item.folder).encode()).hexdigest()[:32]
    with lock(cache_dir() / "locks" / f"{lock_name}.lock", what=item.ref.id):
        # The record goes first: a folder without one counts as unfinished and is made anew.
        delete_tree(record_path(item.folder))
        delete_tree(item.folder)
    freed = 0
    for sha256, size in {(entry.sha256, entry.size) for entry in item.files}:
        path = object_path(sha256 or "")
        if sha256 is not None and is_regular(path):
            with lock(cache_dir() / "locks" / f"{sha256}.lock", what=item.ref.id):
                if path.stat().st_nlink == 1:
                    delete_tree(path)
                    freed += size
    return freed


def sweep(*, older_than: float = DAY) -> None:
    """Delete what killed processes worked in and locked, and what is of use for a day only: part
    files, from which a download goes on, and damaged copies."""
    for folder in (cache_dir() / "damaged", parts_dir()):
        sweep_folder(folder, older_than=older_than)
    with disk("sweep", cache_dir()):
        clear_abandoned(cache_dir().glob("tmp/*"))
        clear_abandoned(cache_dir().glob("locks/*.lock"))


def _stale(
    record: Record, folder: Path, snapshot: Snapshot, files: Sequence[FileEntry]
) -> str | None:
    """Why a folder cannot be used as it is."""
    if record.repo_uuid != snapshot.repo_uuid:
        return "it belongs to a repository of the same name that was removed since"
    if [entry.path for entry in record.entries] != [entry.path for entry in files]:
        return "it holds other files than the commit"
    return damage(as_cached(record, folder))


def _materialise(made: Path, entries: Sequence[FileEntry], objects: Sequence[Path]) -> Path:
    """A new folder with the files, complete and synced."""
    make_folder(made)
    folders = {made}
    for entry, source in zip(entries, objects, strict=True):
        target = made / entry.path
        folders.add(make_folder(target.parent))
        link_or_copy(source, target)
    for folder in folders:
        sync_folder(folder)
    return made


def _retire(folder: Path, work: Path, problem: str | None, ref: Ref, note: Note | None) -> None:
    """Move a folder that cannot be used out of the way: a damaged one is kept for a day, one that
    a killed process did not finish goes with the work."""
    delete_tree(record_path(folder))
    if not folder.exists():
        return
    target = work
    if problem is not None:
        target = make_folder(cache_dir() / "damaged") / f"{folder.name}-{secrets.token_hex(4)}"
    with disk("move", folder):
        os.rename(folder, target)
        os.utime(target)
    if problem is not None and note is not None:
        note(f"{ref.id} was made anew, because {problem}; the old copy is in {target}")


def _put(made: Path, folder: Path, record: Record) -> None:
    make_folder(folder.parent)
    with disk("write", folder):
        os.rename(made, folder)
    sync_folder(folder.parent)
    write(record, folder)
