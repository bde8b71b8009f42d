"""Pull, push, search, show, remove: what a person does with adapters and remotes.

Knows no protocol and no format; stores speak the one, `verify` judges the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot, Summary
from adapterhub.errors import (
    NotFoundError,
    RemoteError,
    UnreachableError,
    UsageError,
    VerificationError,
)
from adapterhub.hub import cache, remotes
from adapterhub.hub.index import DOCUMENTS, MAX_DOCUMENT
from adapterhub.hub.locate import Located, locate, open_remote, places
from adapterhub.hub.locks import Note
from adapterhub.hub.objects import Progress, fetch
from adapterhub.hub.outgoing import outgoing, recording
from adapterhub.hub.paths import wanted
from adapterhub.hub.records import Cached
from adapterhub.hub.remotes import Remote
from adapterhub.hub.verify import verify_folder

_FULL_COMMIT = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """A verified folder on this machine; `ref` has its remote and its commit."""

    ref: Ref
    snapshot: Snapshot
    folder: Path
    remote: Remote
    downloaded_bytes: int
    from_cache: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What a push made; `skipped` are files of the folder that are never sent."""

    ref: Ref
    commit: str
    uri: str
    files: tuple[FileEntry, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One search result and where it is."""

    remote: Remote
    summary: Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """An adapter's commit and its verified small files, by name, without its weights."""

    ref: Ref
    remote: Remote
    snapshot: Snapshot
    documents: Mapping[str, bytes]
    installed: Cached | None


def pull(ref: Ref, *, on_progress: Progress | None = None, note: Note | None = None) -> Pulled:
    """Bring an adapter to this machine and verify its bytes.

    A full commit that is already here needs no network. Raises NotFoundError, UnreachableError,
    DeniedError, IntegrityError, FormatError or StorageError; whatever was here before still is.
    """
    at_hand = _at_hand(ref)
    if at_hand is not None:
        return at_hand
    try:
        found = locate(ref)
    except UnreachableError as error:
        raise _unreachable(ref, error) from error
    files = wanted(found.snapshot.files, name=ref.id)
    held = cache.ensure(
        found.remote, found.store, found.snapshot, files, on_progress=on_progress, note=note
    )
    return Pulled(
        ref=held.cached.ref.on(found.remote.name),
        snapshot=found.snapshot,
        folder=held.cached.folder,
        remote=found.remote,
        downloaded_bytes=held.downloaded_bytes,
        from_cache=held.from_cache,
    )


def push(
    folder: Path,
    ref: Ref,
    *,
    to: str | None = None,
    message: str | None = None,
    parent: str | None = None,
    private: bool = False,
    allow: frozenset[str] = frozenset(),
    on_progress: Progress | None = None,
) -> Pushed:
    """Verify a folder and make it the next revision of `ref` on a remote (`local` by default).

    The codes in `allow` that were needed are written into the published manifest.
    Raises VerificationError for the first problem whose code is not in `allow`, ConflictError
    when `parent` is no longer the newest revision, UsageError when `private` cannot be honoured;
    then nothing has changed.
    """
    target = remotes.remote(_target(ref, to))
    allowed = refuse_problems(folder, allow=allow)
    skipped = outgoing(folder, name=ref.id).skipped
    with recording(folder, allowed, name=ref.id) as source:
        sent = outgoing(source, name=ref.id).files
        snapshot = open_remote(target).publish(
            Ref(namespace=ref.namespace, name=ref.name, remote=target.name),
            source,
            message=message or f"Publish {ref.name}",
            parent=parent,
            private=private,
        )
    if on_progress is not None:
        for entry in snapshot.files:
            on_progress(entry.path, entry.size, entry.size)
    return Pushed(
        ref=ref.on(target.name).at(snapshot.commit),
        commit=snapshot.commit,
        uri=target.uri,
        files=tuple(entry for entry in snapshot.files if entry.path in sent),
        skipped=skipped,
    )


def refuse_problems(folder: Path, *, allow: frozenset[str]) -> frozenset[str]:
    """The codes of the problems that were allowed. Raises VerificationError for the first other."""
    problems = verify_folder(folder).problems
    for problem in problems:
        if problem.code not in allow:
            raise VerificationError(
                problem.message,
                hint=problem.hint or f"keep it anyway with --allow {problem.code}",
            )
    return frozenset(problem.code for problem in problems)


def search(
    query: str,
    *,
    remote: str | None = None,
    base: str | None = None,
    limit: int = 50,
    note: Note | None = None,
) -> list[Found]:
    """Ask one remote or all. `note` hears of remotes that gave no answer, and why.

    Raises RemoteError when none did.
    """
    asked = [remotes.remote(remote)] if remote else list(remotes.remotes().values())
    found: list[Found] = []
    failures: list[RemoteError] = []
    for place in asked:
        try:
            summaries = open_remote(place).search(query, base=base, limit=limit)
        except RemoteError as error:
            failures.append(error)
            if note is not None:
                note(error.message)
        else:
            found += [Found(remote=place, summary=summary) for summary in summaries]
    if failures and len(failures) == len(asked):
        raise failures[0]
    return found


def show(ref: Ref) -> Shown:
    """What a remote says of an adapter, without its weights."""
    found = locate(ref)
    files = wanted(found.snapshot.files, name=ref.id)
    documents = {
        entry.path: fetch(found.store, found.snapshot, entry).path.read_bytes()
        for entry in files
        if entry.path in DOCUMENTS and entry.size <= MAX_DOCUMENT
    }
    exact = ref.on(found.remote.name).at(found.snapshot.commit)
    return Shown(
        ref=exact,
        remote=found.remote,
        snapshot=found.snapshot,
        documents=documents,
        installed=cache.find([found.remote.uri], exact),
    )


def installed() -> list[Cached]:
    """Every adapter on this machine."""
    return cache.cached()


def chosen(ref: Ref) -> list[Cached]:
    """The installed revisions that a ref stands for: all of them unless it names one."""
    return [
        item
        for item in cache.cached()
        if item.ref.id == ref.id
        and ref.remote in (None, item.ref.remote)
        and (ref.revision is None or item.commit.startswith(ref.revision))
    ]


def remove(ref: Ref) -> int:
    """Delete an adapter from this machine, not from its remote. Returns the bytes freed."""
    return sum(cache.remove(item) for item in chosen(ref))


def published(ref: Ref) -> Located:
    """What `unpublish` would delete. Without a remote in the ref only `local` is considered: what
    cannot be undone must not fall through to a hub."""
    if ref.revision is not None:
        raise UsageError(
            "only whole adapters can be unpublished, not single revisions", hint=f"name {ref.id}"
        )
    try:
        return locate(ref.on(ref.remote or remotes.LOCAL))
    except NotFoundError as error:
        if ref.remote is not None:
            raise
        raise NotFoundError(
            error.message, hint=f"for another remote, name it: {remotes.HUB}:{ref.id}"
        ) from error


def unpublish(ref: Ref) -> Remote:
    """Delete an adapter with all its revisions from the remote it is on."""
    found = published(ref)
    found.store.remove(found.snapshot.ref)
    return found.remote


def _target(ref: Ref, to: str | None) -> str:
    if ref.revision is not None:
        raise UsageError(
            f"a push makes a new revision; {ref} already names one", hint=f"push to {ref.id}"
        )
    if to and ref.remote and to != ref.remote:
        raise UsageError(f"{ref} is on {ref.remote}, not on {to}", hint=f"push to {to}:{ref.id}")
    return to or ref.remote or remotes.LOCAL


def _at_hand(ref: Ref) -> Pulled | None:
    """An exact commit that is here, whole and unharmed: commits never change."""
    if ref.revision is None or len(ref.revision) < _FULL_COMMIT:
        return None
    for place in places(ref):
        item = cache.find([place.uri], ref)
        if item is not None and cache.damage(item) is None:
            snapshot = Snapshot(
                ref=ref, commit=item.commit, repo_uuid=item.repo_uuid, files=item.files
            )
            return Pulled(
                ref=item.ref.on(place.name),
                snapshot=snapshot,
                folder=item.folder,
                remote=place,
                downloaded_bytes=0,
                from_cache=True,
            )
    return None


def _unreachable(ref: Ref, error: UnreachableError) -> UnreachableError:
    """Offer what is on this machine, by the commit that needs no network."""
    here = chosen(Ref(namespace=ref.namespace, name=ref.name, remote=ref.remote))
    if not here:
        return error
    newest = max(here, key=lambda item: item.pulled)
    return UnreachableError(
        error.message, hint=f"on this machine is {ref.id}@{newest.commit}; name it to work offline"
    )
