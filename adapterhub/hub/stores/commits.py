"""One repository of a directory store: its identity, its immutable commits and its refs.

Takes no lock; whoever writes holds the store's.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from adapterhub.domain.digest import digest_of
from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry
from adapterhub.errors import FormatError, IntegrityError, UnknownRevisionError, UsageError
from adapterhub.formats.schema import to_plain
from adapterhub.hub.files import atomic_write, delete_tree, disk, read_bytes
from adapterhub.hub.leftovers import clear_abandoned
from adapterhub.hub.paths import unsafe
from adapterhub.hub.sealed import decode_sealed, encode_plain, encode_sealed

T = TypeVar("T")
MAIN = "main"
_FULL = re.compile(r"[0-9a-f]{40}")
_PREFIX = re.compile(r"[0-9a-f]{7,40}")
_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """`repo.json`. The UUID is random and so never comes back, though the name may."""

    uuid: str
    created: str
    schema_version: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstone:
    """What is left of a removed repository."""

    uuid: str
    removed: str
    schema_version: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """`commits/<id>.json`; the id is the sha256 of this value's canonical JSON, cut to 40."""

    repo: str
    files: tuple[FileEntry, ...]
    message: str
    created: str
    parent: str | None = None
    schema_version: int = 1

    @property
    def id(self) -> str:
        return digest_of(to_plain(self))[:40]


@dataclass(frozen=True, slots=True)
class Repository:
    path: Path
    uuid: str

    def head(self, branch: str = MAIN) -> str | None:
        return self._named("refs", branch)

    def commit_for(self, ref: Ref) -> tuple[str, Commit]:
        """The commit a revision stands for: branch, tag, commit or the start of one.

        A full commit is that commit and nothing else, whatever a tag is called.
        """
        revision = ref.revision or MAIN
        named = None
        if unsafe(revision) is None and not _FULL.fullmatch(revision):
            named = self._named("refs", revision) or self._named("tags", revision)
        found = named or self._by_prefix(ref, revision)
        return found, self.commit(found)

    def commit(self, commit_id: str) -> Commit:
        """Raises IntegrityError when the file is gone or is not what its name says."""
        path = self._commit_path(commit_id)
        data = read_bytes(path, limit=_LIMIT)
        commit = None if data is None else _decoded(data, Commit, path)
        own = commit is not None and commit.id == commit_id and commit.repo == self.uuid
        if commit is None or not own or encode_plain(commit) != data:
            fact = "is missing" if commit is None else "has been changed"
            raise IntegrityError(f"{path} {fact}", hint="restore it, or publish again")
        return commit

    def objects(self) -> set[str]:
        """The sha256 of every file of every commit."""
        commits = [self.commit(path.stem) for path in (self.path / "commits").glob("*.json")]
        return {entry.sha256 for commit in commits for entry in commit.files if entry.sha256}

    def add(self, commit: Commit) -> str:
        """Write a commit, then point `main` at it: that rename is the publication."""
        atomic_write(self._pending, commit.id.encode())
        atomic_write(self._commit_path(commit.id), encode_plain(commit))
        atomic_write(self.path / "refs" / MAIN, commit.id.encode())
        delete_tree(self._pending)
        return commit.id

    def settle(self) -> None:
        """Delete what a push that was killed had begun to add, and nothing that it had added."""
        clear_abandoned((self.path / "commits").glob(".*.tmp"))
        commit_id = (read_bytes(self._pending, limit=64) or b"").decode(errors="replace")
        begun = _FULL.fullmatch(commit_id) and self._commit_path(commit_id).is_file()
        # What is damaged cannot be told from a published commit, and stays.
        with contextlib.suppress(IntegrityError):
            if begun and self.commit(commit_id).parent == self.head() != commit_id:
                delete_tree(self._commit_path(commit_id))
        delete_tree(self._pending)

    def tag(self, name: str, commit_id: str) -> None:
        """Name a commit for good. Raises UsageError for a name that is unsafe, taken or reads like
        a commit."""
        usable = unsafe(name) is None and not _PREFIX.fullmatch(name)
        if not usable or self._named("tags", name) not in (None, commit_id):
            raise UsageError(f"{name!r} cannot be a new tag", hint="choose another name")
        atomic_write(self.path / "tags" / name, commit_id.encode())

    def bury(self, tombstone: Path) -> None:
        atomic_write(tombstone, encode_sealed(Tombstone(uuid=self.uuid, removed=now())))

    @property
    def _pending(self) -> Path:
        return self.path / "pending"

    def _commit_path(self, commit_id: str) -> Path:
        return self.path / "commits" / f"{commit_id}.json"

    def _named(self, kind: str, name: str) -> str | None:
        path = self.path / kind / name
        if not path.is_file():
            return None
        text = (read_bytes(path, limit=64) or b"").decode(errors="replace").strip()
        if not _FULL.fullmatch(text):
            raise IntegrityError(f"{path} does not hold a commit", hint="restore it from a copy")
        return text

    def _by_prefix(self, ref: Ref, revision: str) -> str:
        folder = self.path / "commits"
        found: list[str] = []
        if _PREFIX.fullmatch(revision) and folder.is_dir():
            with disk("list", folder):
                found = sorted(path.stem for path in folder.glob(f"{revision}*.json"))
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownRevisionError(
                f"{revision} is the start of {len(found)} commits of {ref.id}",
                hint=f"write more of it: {', '.join(commit[:12] for commit in found[:5])}",
            )
        raise UnknownRevisionError(
            f"{ref.id} has no revision {revision}", hint=f"adapterhub show {ref.id}"
        )


def open_repository(path: Path) -> Repository | None:
    identity = _load(path / "repo.json", Identity)
    return None if identity is None else Repository(path, identity.uuid)


def new_repository(path: Path) -> Repository:
    identity = Identity(uuid=secrets.token_hex(16), created=now())
    atomic_write(path / "repo.json", encode_sealed(identity))
    return Repository(path, identity.uuid)


def last_tombstone(folder: Path) -> Tombstone | None:
    """The latest of the tombstones in a folder."""
    if not folder.is_dir():
        return None
    found = [stone for path in folder.glob("*.json") if (stone := _load(path, Tombstone))]
    return max(found, key=lambda stone: stone.removed, default=None)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _load(path: Path, kind: type[T]) -> T | None:
    data = read_bytes(path, limit=_LIMIT)
    return None if data is None else _decoded(data, kind, path)


def _decoded(data: bytes, kind: type[T], path: Path) -> T:
    try:
        return decode_sealed(data, kind, name=str(path))
    except FormatError as error:
        raise IntegrityError(error.message, hint="restore it from a copy") from error
