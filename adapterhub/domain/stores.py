"""What a place adapters live in can do, and the values it answers with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapterhub.domain.refs import Ref


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a commit. Exactly one of `sha256` and `git_blob` may be unknown, never both."""

    path: str
    size: int
    sha256: str | None = None
    git_blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One immutable revision of a repository. `repo_uuid` is never reused, unlike the name."""

    ref: Ref
    commit: str
    repo_uuid: str
    files: tuple[FileEntry, ...]
    parent: str | None = None
    created: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One line of a search."""

    id: str
    commit: str | None = None
    method: str | None = None
    base: str | None = None
    updated: str | None = None
    tags: tuple[str, ...] = ()


class Store(Protocol):
    """A place adapters live in. Opening one touches neither network nor disk."""

    uri: str

    def resolve(self, ref: Ref) -> Snapshot:
        """Raises NotFoundError, UnknownRevisionError, UnreachableError or DeniedError."""

    def read(
        self, snapshot: Snapshot, path: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """The bytes of a file from `offset` on, at most `length` of them, in chunks. Nothing here
        verifies them."""

    def publish(
        self, ref: Ref, folder: Path, *, message: str, parent: str | None, private: bool = False
    ) -> Snapshot:
        """Make the folder's files the next revision, creating the repository if need be.

        `parent` is the commit it builds on (None: whatever is there). Raises ConflictError when
        somebody was faster, DeniedError without the right; then nothing has changed.
        """

    def search(self, query: str, *, base: str | None = None, limit: int = 50) -> list[Summary]: ...

    def names(self, namespace: str | None = None) -> list[str]:
        """`namespace/name` of what may be listed, for `list` and for did-you-mean."""

    def remove(self, ref: Ref) -> None:
        """Remove the repository; its name stays taken by a tombstone where the store can."""
