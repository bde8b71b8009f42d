"""Bring one file of a commit into the content-addressed part of the cache.

A killed download is resumed by the next process, and no byte gets an object's name before it has
been hashed. Does not know what the files are for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapterhub.domain.digest import is_sha256
from adapterhub.domain.stores import FileEntry, Snapshot, Store
from adapterhub.errors import IntegrityError, StorageError
from adapterhub.hub.files import (
    CHUNK,
    Digests,
    atomic_write,
    delete_tree,
    digests,
    disk,
    install,
    is_regular,
    make_folder,
    read_bytes,
)
from adapterhub.hub.home import cache_dir
from adapterhub.hub.locks import Note, lock

Progress = Callable[[str, int, int], None]  # path, bytes so far, bytes in all
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A verified object, and how many of its bytes had to be downloaded."""

    path: Path
    sha256: str
    downloaded: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Received:
    digests: Digests
    downloaded: int
    start: bytes


def object_path(sha256: str) -> Path:
    return cache_dir() / "objects" / sha256[:2] / sha256


def parts_dir() -> Path:
    return cache_dir() / "parts"


def fetch(
    store: Store,
    snapshot: Snapshot,
    entry: FileEntry,
    *,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Fetched:
    """The object with this entry's bytes, downloaded if need be, by one process at a time where the
    file system has locks.

    Raises IntegrityError when the remote twice sends something else than it promised.
    """
    key = _key(entry, snapshot)
    with lock(cache_dir() / "locks" / f"{key}.lock", what=entry.path, note=note) as held:
        present = _present(entry)
        if present is None:
            # Without a lock, two processes writing one part would each spoil the other's.
            part = f"{key}.part" if held else f"{key}.{secrets.token_hex(4)}.part"
            return _download(store, snapshot, entry, part, progress=progress, note=note)
        if progress is not None:
            progress(entry.path, entry.size, entry.size)
        return present


def mismatch(entry: FileEntry, found: Digests) -> str | None:
    """How bytes differ from what the commit says, None if they do not."""
    if found.size != entry.size:
        return f"{found.size:,} bytes instead of {entry.size:,}"
    if entry.sha256 is not None and found.sha256 != entry.sha256:
        return f"sha256 {found.sha256[:12]} instead of {entry.sha256[:12]}"
    if entry.git_blob is not None and entry.sha256 is None and found.git_blob != entry.git_blob:
        return f"git blob {found.git_blob[:12]} instead of {entry.git_blob[:12]}"
    return None


def _key(entry: FileEntry, snapshot: Snapshot) -> str:
    """A file name for the entry's digest, which a remote chose: checked before it is used."""
    if entry.sha256 is not None and is_sha256(entry.sha256):
        return entry.sha256
    if entry.sha256 is None and entry.git_blob and _GIT_BLOB.fullmatch(entry.git_blob):
        return f"git-{entry.git_blob}"
    raise IntegrityError(
        f"{snapshot.ref.id}: the remote gives no digest for {entry.path}",
        hint="nothing was written; its bytes could not be verified",
    )


def _pointer(git_blob: str) -> Path:
    """Which object a git blob is: regular files of a hub are known by that name only."""
    return cache_dir() / "blobs" / git_blob[:2] / git_blob


def _present(entry: FileEntry) -> Fetched | None:
    sha256 = entry.sha256
    if sha256 is None and entry.git_blob is not None:
        text = read_bytes(_pointer(entry.git_blob), limit=64) or b""
        sha256 = text.decode(errors="replace")
    if sha256 is None or not is_sha256(sha256):
        return None
    path = object_path(sha256)
    if not is_regular(path):
        return None
    if mismatch(entry, digests(path)) is not None:
        delete_tree(path)
        return None
    return Fetched(path=path, sha256=sha256, downloaded=0)


def _download(
    store: Store,
    snapshot: Snapshot,
    entry: FileEntry,
    part_name: str,
    *,
    progress: Progress | None,
    note: Note | None,
) -> Fetched:
    part = make_folder(parts_dir()) / part_name
    downloaded = 0
    problem = None
    for _ in range(2):
        if problem is not None and note is not None:
            note(f"{entry.path} arrived damaged ({problem}); fetching it anew")
        try:
            received = _receive(store, snapshot, entry, part, progress)
        except StorageError:
            # A part that cannot be finished must not fill the disk, nor be trusted after EIO.
            delete_tree(part)
            raise
        downloaded += received.downloaded
        problem = mismatch(entry, received.digests)
        if problem is None:
            return _keep(entry, part, received.digests, downloaded)
        problem += _guess(received.start, entry)
        delete_tree(part)
    raise IntegrityError(
        f"{snapshot.ref.id}: {store.uri} sent {entry.path} with {problem}",
        hint="nothing was kept; try again later, or tell whoever runs that remote",
    )


def _keep(entry: FileEntry, part: Path, found: Digests, downloaded: int) -> Fetched:
    target = object_path(found.sha256)
    install(part, target)
    if entry.sha256 is None:
        atomic_write(_pointer(found.git_blob), found.sha256.encode())
    return Fetched(path=target, sha256=found.sha256, downloaded=downloaded)


def _receive(
    store: Store, snapshot: Snapshot, entry: FileEntry, part: Path, progress: Progress | None
) -> _Received:
    """Bring the part file to its full size, from wherever an earlier process left it."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    start = b""
    done = 0
    with disk("write", part):
        handle = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        with os.fdopen(handle, "r+b") as file:
            if os.fstat(handle).st_size > entry.size:
                file.truncate(0)
            while chunk := file.read(CHUNK):
                start = start or chunk[:64]
                sha256.update(chunk)
                blob.update(chunk)
                done += len(chunk)
            resumed = done
            for chunk in _rest(store, snapshot, entry, done):
                start = start or chunk[:64]
                sha256.update(chunk)
                blob.update(chunk)
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(entry.path, min(done, entry.size), entry.size)
                if done > entry.size:
                    break
            file.flush()
            os.fsync(handle)
    found = Digests(size=done, sha256=sha256.hexdigest(), git_blob=blob.hexdigest())
    return _Received(digests=found, downloaded=done - resumed, start=start)


def _rest(store: Store, snapshot: Snapshot, entry: FileEntry, offset: int) -> Iterator[bytes]:
    if offset >= entry.size:
        return
    chunks = store.read(snapshot, entry.path, offset=offset)
    # A generator left half-read would keep its connection until it is collected.
    close = getattr(chunks, "close", None)
    with contextlib.ExitStack() as stack:
        if close is not None:
            stack.callback(close)
        yield from chunks


def _guess(start: bytes, entry: FileEntry) -> str:
    """What was sent instead of weights, when its first bytes tell."""
    if not entry.path.endswith(".safetensors"):
        return ""
    head = start.lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return ": it is a web page"
    if head.startswith(b"version https://git-lfs"):
        return ": it is a pointer to the file, not the file"
    return ""
