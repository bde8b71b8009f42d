"""A registry in a folder: content-addressed objects, immutable commits, refs replaced atomically.

A reader needs no lock and sees the old revision or the new one, wherever a writer was killed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot, Summary
from adapterhub.errors import (
    AdapterhubError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    RemovedError,
    UsageError,
)
from adapterhub.hub.files import (
    CHUNK,
    copy_synced,
    delete_tree,
    digests,
    disk,
    install,
    is_regular,
    make_folder,
    sync_folder,
    workspace,
)
from adapterhub.hub.index import MAX_DOCUMENT, matches, summarise
from adapterhub.hub.locks import write_lock
from adapterhub.hub.outgoing import outgoing
from adapterhub.hub.stores.commits import (
    MAIN,
    Commit,
    Repository,
    last_tombstone,
    new_repository,
    now,
    open_repository,
)
from adapterhub.plugin.markers import hookimpl


@hookimpl
def adapterhub_open_store(uri: str) -> DirectoryStore | None:
    return DirectoryStore(uri) if urlsplit(uri).scheme == "file" else None


class DirectoryStore:
    """`adapterhub.domain.protocols.Store` on a file system."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(url2pathname(urlsplit(uri).path))

    def resolve(self, ref: Ref) -> Snapshot:
        repository = self._repository(ref)
        return self._snapshot(ref, repository, repository.commit_for(ref))

    def read(
        self, snapshot: Snapshot, path: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        entry = next((entry for entry in snapshot.files if entry.path == path), None)
        if entry is None or entry.sha256 is None:
            raise NotFoundError(
                f"{snapshot.ref.id} has no file {path}", hint=f"adapterhub show {snapshot.ref.id}"
            )
        source = self._object(entry.sha256)
        if not is_regular(source):
            raise IntegrityError(
                f"{self.uri} lost {path} of {snapshot.ref.id}", hint="publish that revision again"
            )
        with disk("read", source), source.open("rb") as file:
            file.seek(offset)
            left = entry.size if length is None else length
            while chunk := file.read(min(CHUNK, left)):
                left -= len(chunk)
                yield chunk

    def publish(
        self,
        ref: Ref,
        folder: Path,
        *,
        message: str,
        parent: str | None,
        private: bool = False,
    ) -> Snapshot:
        if private:
            raise UsageError(
                f"{self.uri} has no private adapters: whoever can read the folder reads them all",
                hint="push without --private; the folder's mode says who can read it",
            )
        # The slow part needs no lock: nobody sees a copy before it has an object's name.
        sent = outgoing(folder, name=ref.id)
        with workspace(self._root / "tmp") as work:
            copies = {path: work / str(index) for index, path in enumerate(sent.files)}
            entries = tuple(_copy(sent.files[path], copies[path], path) for path in sent.files)
            with self._lock(ref):
                for entry in entries:
                    self._keep(copies[entry.path], entry)
                return self._commit(ref, entries, message, parent)

    def search(self, query: str, *, base: str | None = None, limit: int = 50) -> list[Summary]:
        found = (self._summary(name) for name in self.names())
        fitting = [item for item in found if item is not None and matches(item, query, base)]
        return fitting[:limit]

    def names(self, namespace: str | None = None) -> list[str]:
        root = self._root / "repos"
        if not root.is_dir():
            return []
        with disk("list", root):
            heads = root.glob(f"{namespace or '*'}/*/refs/{MAIN}")
            return sorted(f"{head.parts[-4]}/{head.parts[-3]}" for head in heads)

    def remove(self, ref: Ref) -> None:
        """The objects no other repository uses go too; the tombstone keeps the UUID and date."""
        with self._lock(ref):
            repository = self._repository(ref)
            mine = repository.objects()
            repository.bury(self._grave(ref) / f"{repository.uuid}.json")
            gone = make_folder(self._root / "tmp") / secrets.token_hex(8)
            with disk("remove", repository.path):
                os.rename(repository.path, gone)
            sync_folder(repository.path.parent)
            delete_tree(gone)
            for sha256 in mine - self._in_use():
                delete_tree(self._object(sha256))

    def tag(self, ref: Ref, name: str) -> None:
        """Give the commit a ref stands for a name that never moves."""
        with self._lock(ref):
            repository = self._repository(ref)
            repository.tag(name, repository.commit_for(ref)[0])

    def _lock(self, ref: Ref) -> AbstractContextManager[None]:
        return write_lock(self._root / "locks" / "write.lock", what=f"{ref.id} in {self._root}")

    def _path(self, ref: Ref) -> Path:
        return self._root / "repos" / ref.namespace / ref.name

    def _grave(self, ref: Ref) -> Path:
        return self._root / "removed" / ref.namespace / ref.name

    def _object(self, sha256: str) -> Path:
        return self._root / "objects" / sha256[:2] / sha256

    def _repository(self, ref: Ref) -> Repository:
        """Raises NotFoundError; one without a first revision counts as not there."""
        repository = open_repository(self._path(ref))
        if repository is not None and repository.head() is not None:
            return repository
        stone = last_tombstone(self._grave(ref))
        hint = f"adapterhub search {ref.name}"
        if stone is not None:
            day = stone.removed[:10]
            raise RemovedError(
                f"{self.uri} has no adapter {ref.id}; it was removed on {day}", hint=hint
            )
        raise NotFoundError(f"{self.uri} has no adapter {ref.id}", hint=hint)

    def _snapshot(self, ref: Ref, repository: Repository, found: tuple[str, Commit]) -> Snapshot:
        commit_id, commit = found
        return Snapshot(
            ref=ref,
            commit=commit_id,
            repo_uuid=repository.uuid,
            files=commit.files,
            parent=commit.parent,
            created=commit.created,
        )

    def _keep(self, copy: Path, entry: FileEntry) -> None:
        """Make a copy an object; one that is there and unharmed stays."""
        target = self._object(entry.sha256 or "")
        if not is_regular(target) or digests(target).sha256 != entry.sha256:
            install(copy, target)

    def _commit(
        self, ref: Ref, files: tuple[FileEntry, ...], message: str, parent: str | None
    ) -> Snapshot:
        repository = open_repository(self._path(ref))
        if repository is not None:
            repository.settle()
        head = None if repository is None else repository.head()
        if parent is not None and (head is None or not head.startswith(parent)):
            raise ConflictError(
                f"{ref.id} is at {head[:12] if head else 'no revision'}, not at {parent[:12]}",
                hint=f"pull {ref.id}, look at what changed, then push again",
            )
        repository = repository or new_repository(self._path(ref))
        if head is not None and repository.commit(head).files == files:
            return self._snapshot(ref, repository, (head, repository.commit(head)))
        commit = Commit(
            repo=repository.uuid, files=files, message=message, created=now(), parent=head
        )
        return self._snapshot(ref, repository, (repository.add(commit), commit))

    def _in_use(self) -> set[str]:
        found: set[str] = set()
        for path in (self._root / "repos").glob("*/*/repo.json"):
            repository = open_repository(path.parent)
            found |= repository.objects() if repository else set()
        return found

    def _summary(self, name: str) -> Summary | None:
        """None for a repository that is broken or was removed meanwhile."""
        namespace, _, short = name.partition("/")
        try:
            snapshot = self.resolve(Ref(namespace=namespace, name=short))
            return summarise(snapshot, lambda path: self._document(snapshot, path))
        except AdapterhubError:
            return None

    def _document(self, snapshot: Snapshot, path: str) -> bytes | None:
        small = [e for e in snapshot.files if e.path == path and e.size <= MAX_DOCUMENT]
        return b"".join(self.read(snapshot, path)) if small else None


def _copy(source: Path, target: Path, path: str) -> FileEntry:
    found = copy_synced(source, target)
    return FileEntry(path=path, size=found.size, sha256=found.sha256, git_blob=found.git_blob)
