"""Bring exactly the bytes of a lock to this machine, or say by name why that cannot be.

A commit is what a remote, or a record made when it was pulled, says it is: files that a lock names
are never put together under a commit on the lock's word alone, or a forged lock could pass
somebody's bytes off as another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapterhub.domain.lock import LOCK_FILE, Lock, LockedAdapter, LockedRepository
from adapterhub.domain.stores import FileEntry
from adapterhub.errors import (
    IntegrityError,
    NotFoundError,
    UnknownRevisionError,
    UsageError,
)
from adapterhub.hub import cache, remotes
from adapterhub.hub.files import copy_synced, is_regular, make_folder
from adapterhub.hub.locate import locate
from adapterhub.hub.locks import Note
from adapterhub.hub.objects import Progress
from adapterhub.hub.paths import wanted
from adapterhub.hub.records import Cached
from adapterhub.hub.staging import staged_folder, sweep_beside


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """One locked adapter that is here: its folder, and what had to be fetched with its members."""

    locked: LockedAdapter
    folder: Path
    downloaded_bytes: int


def sync(
    lock: Lock, *, offline: bool, on_progress: Progress | None = None, note: Note | None = None
) -> list[Synced]:
    """Every adapter of the lock, each of its files hashed.

    `offline` asks no remote, not even one that is a folder. Raises NotFoundError for what is not in
    the cache then, and IntegrityError for a byte, a commit or a repository that is not the locked
    one; what was here before still is.
    """
    if offline:
        _check_present(lock)
    return [
        _sync(item, offline=offline, on_progress=on_progress, note=note) for item in lock.adapters
    ]


def write_folders(
    synced: Iterable[Synced], into: Path, *, overwrite: bool = False
) -> dict[str, Path]:
    """Copy each adapter to `into/NAME`, hashing what was written; a folder that already is the
    locked adapter stays. Raises UsageError for one that is something else, unless `overwrite`."""
    made = {}
    for one in synced:
        target = into / one.locked.name
        made[one.locked.name] = target
        if target.is_symlink():
            raise UsageError(f"{target} is a link, which is never followed", hint="remove the link")
        sweep_beside(target)  # also where nothing is to be written over what a killed run left
        difference = _folder_difference(one, target)
        if difference is None:
            continue
        if target.is_dir() and any(target.iterdir()) and not overwrite:
            raise UsageError(
                f"{target} is not what {LOCK_FILE} holds: {difference}",
                hint="name another folder, or add --overwrite",
            )
        _write_folder(one, target, overwrite=overwrite)
    return made


# --- the cache and the remotes ------------------------------------------------------------------


def _check_present(lock: Lock) -> None:
    """All that is missing, at once."""
    missing = [
        f"{item.name} ({repository.exact.id}@{repository.commit[:12]})"
        for item in lock.adapters
        for repository in item.repositories
        if _find(repository) is None
    ]
    if missing:
        raise NotFoundError(
            f"not in the cache: {', '.join(dict.fromkeys(missing))}",
            hint="adapterhub sync --frozen, once, where the network may be used",
        )


def _sync(
    item: LockedAdapter, *, offline: bool, on_progress: Progress | None, note: Note | None
) -> Synced:
    folders: list[Path] = []
    downloaded = 0
    for repository in item.repositories:
        present = _find(repository)
        if present is not None:
            _check_identity(item.name, repository, present.repo_uuid, present.files)
        damage = None if present is None else cache.damage(present)
        if present is None or (damage is not None and not offline):
            held = _fetch(item.name, repository, on_progress=on_progress, note=note)
            downloaded += held.downloaded_bytes
            present = held.cached
        elif damage is not None:
            raise IntegrityError(
                f"{item.name}: in the cache of {repository.ref}@{repository.commit[:12]}, {damage}",
                hint="adapterhub sync --frozen, where the network may be used, fetches it anew",
            )
        folders.append(present.folder)
    return Synced(locked=item, folder=folders[0], downloaded_bytes=downloaded)


def _find(repository: LockedRepository) -> Cached | None:
    return cache.find([remotes.remote(repository.remote).uri], repository.exact)


def _fetch(
    name: str, repository: LockedRepository, *, on_progress: Progress | None, note: Note | None
) -> cache.Held:
    try:
        found = locate(repository.exact)
    except UnknownRevisionError as error:
        raise UnknownRevisionError(
            f"{name}: {repository.remote}:{repository.ref} no longer has the commit "
            f"{repository.commit[:12]} that was locked: its history was rewritten, or it was made "
            "anew",
            hint=f"if you trust what is there now: adapterhub lock --accept {name}",
        ) from error
    except NotFoundError as error:
        raise type(error)(f"{name}: {error.message}", hint=error.hint) from error
    files = wanted(found.snapshot.files, name=repository.ref)
    _check_identity(name, repository, found.snapshot.repo_uuid, files)
    held = cache.ensure(
        found.remote, found.store, found.snapshot, files, on_progress=on_progress, note=note
    )
    _check_identity(name, repository, held.cached.repo_uuid, held.cached.files)
    return held


def _check_identity(
    name: str, repository: LockedRepository, repo_uuid: str, files: Sequence[FileEntry]
) -> None:
    """The repository and the files of its commit are those that were locked, as far as is known:
    a hub gives no sha256 of a small file before that was fetched."""
    place = f"{repository.remote}:{repository.ref}"
    if repo_uuid != repository.repo_uuid:
        raise IntegrityError(
            f"{name}: {place} is not the repository that was locked: it was removed and made anew",
            hint=f"if you trust what is there now: adapterhub lock --accept {name}",
        )
    there = {entry.path: entry for entry in files}
    locked = {file.path: file for file in repository.files}
    for path in sorted(there.keys() | locked.keys()):
        mine, theirs = locked.get(path), there.get(path)
        if mine is not None and theirs is not None:
            sha256 = theirs.sha256 or mine.sha256
            if (mine.size, mine.sha256) == (theirs.size, sha256):
                continue
            fact = f"{path} is another file there"
        else:
            fact = f"{path} is not {'there' if mine else 'locked'}"
        raise IntegrityError(
            f"{name}: {LOCK_FILE} is not what {place}@{repository.commit[:12]} holds: {fact}",
            hint=f"restore {LOCK_FILE}, or write it again: adapterhub lock",
        )


# --- folders --------------------------------------------------------------------------------------


def _folder_difference(one: Synced, target: Path) -> str | None:
    if not target.is_dir():
        return "there is no such folder"
    return cache.damage(replace(_as_cached(one), folder=target))


def _as_cached(one: Synced) -> Cached:
    """The locked files as a thing that can be hashed."""
    repository = one.locked.adapter
    return Cached(
        ref=repository.exact,
        uri="",
        commit=repository.commit,
        repo_uuid=repository.repo_uuid,
        folder=one.folder,
        files=tuple(
            FileEntry(path=file.path, size=file.size, sha256=file.sha256)
            for file in repository.files
        ),
        pulled="",
    )


def _write_folder(one: Synced, target: Path, *, overwrite: bool) -> None:
    with staged_folder(target, overwrite=overwrite) as stage:
        for file in one.locked.adapter.files:
            source, copy = one.folder / file.path, stage / file.path
            make_folder(copy.parent)
            # Hashed before a moment ago; what counts is what was written.
            if not is_regular(source) or copy_synced(source, copy).sha256 != file.sha256:
                raise IntegrityError(
                    f"{one.locked.name}: {file.path} changed in the cache while it was copied",
                    hint="run adapterhub sync again",
                )
