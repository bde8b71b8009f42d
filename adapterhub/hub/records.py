"""What is written beside each cached folder: the files it holds and where they came from.

Reads and names; makes no folder and trusts no digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot
from adapterhub.errors import FormatError, IntegrityError
from adapterhub.hub.files import atomic_write, disk, read_bytes
from adapterhub.hub.home import cache_dir
from adapterhub.hub.paths import check_paths
from adapterhub.hub.remotes import Remote
from adapterhub.hub.sealed import decode_sealed, encode_sealed

_LIMIT = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The JSON beside a folder: what it holds and where it came from."""

    remote: str
    uri: str
    namespace: str
    name: str
    commit: str
    repo_uuid: str
    pulled: str
    entries: tuple[FileEntry, ...]
    schema_version: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Cached:
    """An adapter on this machine. `ref` has its remote and its commit."""

    ref: Ref
    uri: str
    commit: str
    repo_uuid: str
    folder: Path
    files: tuple[FileEntry, ...]
    pulled: str

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)


def is_commit(text: str | None) -> bool:
    return text is not None and _COMMIT.fullmatch(text) is not None


def folder_for(uri: str, ref: Ref, commit: str) -> Path:
    if not is_commit(commit):
        raise IntegrityError(
            f"{uri} answered with {commit!r}, which is not a commit",
            hint="nothing was written; is that address a hub?",
        )
    scheme, _, rest = uri.partition("://")
    host = re.sub(r"[^a-z0-9.-]", "-", rest.partition("/")[0].lower())[:40] or scheme
    place = f"{host}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    return cache_dir() / "snapshots" / place / ref.namespace / ref.name / commit


def record_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def read(folder: Path) -> Record | None:
    """The record of a folder, None when there is none or it makes no sense."""
    data = read_bytes(record_path(folder), limit=_LIMIT)
    if data is None or not folder.is_dir():
        return None
    try:
        name = str(record_path(folder))
        record = decode_sealed(data, Record, name=name)
        check_paths([entry.path for entry in record.entries], name=name)
    except FormatError:
        return None
    return record if record.schema_version == 1 and record.commit == folder.name else None


def write(record: Record, folder: Path) -> None:
    atomic_write(record_path(folder), encode_sealed(record))


def new_record(remote: Remote, snapshot: Snapshot, entries: tuple[FileEntry, ...]) -> Record:
    return Record(
        remote=remote.name,
        uri=remote.uri,
        namespace=snapshot.ref.namespace,
        name=snapshot.ref.name,
        commit=snapshot.commit,
        repo_uuid=snapshot.repo_uuid,
        pulled=datetime.now(UTC).isoformat(timespec="seconds"),
        entries=entries,
    )


def as_cached(record: Record, folder: Path) -> Cached:
    return Cached(
        ref=Ref(
            namespace=record.namespace,
            name=record.name,
            remote=record.remote,
            revision=record.commit,
        ),
        uri=record.uri,
        commit=record.commit,
        repo_uuid=record.repo_uuid,
        folder=folder,
        files=record.entries,
        pulled=record.pulled,
    )


def every() -> Iterator[Cached]:
    for folder in _folders():
        record = _own(folder)
        if record is not None:
            yield as_cached(record, folder)


def unreadable() -> list[str]:
    """The names, with their commits, of what has a damaged record here, and so is not listed."""
    return [
        f"{folder.parts[-3]}/{folder.parts[-2]}@{folder.name}"
        for folder in _folders()
        if folder.is_dir() and _own(folder) is None
    ]


def _folders() -> list[Path]:
    root = cache_dir() / "snapshots"
    if not root.is_dir():
        return []
    with disk("list", root):
        return [path.with_suffix("") for path in sorted(root.glob("*/*/*/*.json"))]


def _own(folder: Path) -> Record | None:
    """The record of a folder that is about the adapter whose place it is in."""
    record = read(folder)
    named = record is not None and (record.namespace, record.name) == folder.parts[-3:-1]
    return record if named else None
