"""One repository of a directory store: its identity, its immutable commits and its refs.

Takes no lock; whoever writes holds the store's.
"""

from __future__ import annotations

import json
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
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import atomic_write, disk, read_bytes
from adapterhub.hub.paths import unsafe

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
        path = self.path / "commits" / f"{commit_id}.json"
        commit = _load(path, Commit)
        if commit is None or commit.id != commit_id or commit.repo != self.uuid:
            fact = "is missing" if commit is None else "has been changed"
            raise IntegrityError(f"{path} {fact}", hint="restore it, or publish again")
        return commit

    def objects(self) -> set[str]:
        """The sha256 of every file of every commit."""
        commits = [self.commit(path.stem) for path in (self.path / "commits").glob("*.json")]
        return {entry.sha256 for commit in commits for entry in commit.files if entry.sha256}

    def add(self, commit: Commit) -> str:
        """Write a commit, then point `main` at it: that rename is the publication."""
        _save(self.path / "commits" / f"{commit.id}.json", commit)
        atomic_write(self.path / "refs" / MAIN, commit.id.encode())
        return commit.id

    def tag(self, name: str, commit_id: str) -> None:
        """Name a commit for good. Raises UsageError for a name that is unsafe, taken or reads like
        a commit."""
        usable = unsafe(name) is None and not _PREFIX.fullmatch(name)
        if not usable or self._named("tags", name) not in (None, commit_id):
            raise UsageError(f"{name!r} cannot be a new tag", hint="choose another name")
        atomic_write(self.path / "tags" / name, commit_id.encode())

    def bury(self, tombstone: Path) -> None:
        _save(tombstone, Tombstone(uuid=self.uuid, removed=now()))

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
    _save(path / "repo.json", identity)
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
    if data is None:
        return None
    try:
        return to_domain(loads_strict(data, name=str(path)), kind, name=str(path))
    except FormatError as error:
        raise IntegrityError(error.message, hint="restore it from a copy") from error


def _save(path: Path, value: object) -> None:
    text = json.dumps(to_plain(value), indent=1, sort_keys=True, ensure_ascii=False)
    atomic_write(path, text.encode())
