"""A project's `adapters.toml` and `adapters.lock`: read them, and lock what is wanted.

Locking pulls and verifies; bringing locked bytes to a machine is `hub.sync`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.composition import PinnedTerm
from adapterhub.domain.lock import (
    LOCK_FILE,
    WANTED_FILE,
    Lock,
    LockedAdapter,
    LockedFile,
    LockedPlugin,
    LockedRepository,
    Wanted,
    WantedAdapters,
)
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.match import WRONG_BASE, another_base, match_base, record_of
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    UnknownRevisionError,
)
from adapterhub.formats.lock_file import (
    MAX_LOCK_BYTES,
    decode_lock,
    decode_wanted,
    encode_lock,
    new_wanted,
    with_wanted,
)
from adapterhub.hub import cache, remotes
from adapterhub.hub.client import Pulled, refuse_problems
from adapterhub.hub.files import atomic_write, digests, read_bytes
from adapterhub.hub.folder import COMPOSITION_METHOD, AdapterFolder, read_folder
from adapterhub.hub.home import cache_dir
from adapterhub.hub.locate import open_remote
from adapterhub.hub.locks import write_lock
from adapterhub.plugin.catalog import Shelf, catalog

Fetch = Callable[[Ref], Pulled]
FindBase = Callable[[str], BaseSpec]


def read_wanted(folder: Path) -> WantedAdapters:
    """Raises NotFoundError where a project wants nothing yet."""
    data = read_bytes(folder / WANTED_FILE, limit=MAX_LOCK_BYTES)
    if data is None:
        raise NotFoundError(f"there is no {WANTED_FILE} here", hint="adapterhub add USER/NAME")
    return decode_wanted(data)


def read_lock(folder: Path) -> Lock | None:
    data = read_bytes(folder / LOCK_FILE, limit=MAX_LOCK_BYTES + 1)
    return None if data is None else decode_lock(data)


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """One process at a time changes a project's two files."""
    key = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:32]
    with write_lock(cache_dir() / "locks" / f"project-{key}.lock", what=str(folder / LOCK_FILE)):
        yield


def add(folder: Path, name: str, wanted: Wanted, *, fetch: Fetch, find_base: FindBase) -> Lock:
    """Write one adapter more into both files, once it could be locked; the others stay as locked.

    Raises UsageError where the name is taken, and what locking raises; then nothing has changed.
    """
    data = read_bytes(folder / WANTED_FILE, limit=MAX_LOCK_BYTES)
    made = with_wanted(new_wanted() if data is None else data, name, wanted)
    lock = lock_wanted(
        decode_wanted(made), read_lock(folder), fetch=fetch, find_base=find_base, keep=True
    )
    atomic_write(folder / WANTED_FILE, made)
    write_lock_file(folder, lock)
    return lock


def write_lock_file(folder: Path, lock: Lock) -> bool:
    """Whether the file changed; one that would not is not touched."""
    data = encode_lock(lock)
    if read_bytes(folder / LOCK_FILE, limit=MAX_LOCK_BYTES + 1) == data:
        return False
    atomic_write(folder / LOCK_FILE, data)
    return True


def lock_wanted(
    wanted: WantedAdapters,
    before: Lock | None,
    *,
    fetch: Fetch,
    find_base: FindBase,
    keep: bool,
    accept: Collection[str] = (),
) -> Lock:
    """What is wanted, as it is now. With `keep`, what the lock before answers already stays.

    `fetch` pulls. Raises IntegrityError for an adapter whose repository was replaced, or whose
    history was, since `before` and is not in `accept`; MismatchError for another base than its own.
    """
    made = []
    for name, entry in sorted(wanted.adapters.items()):
        old = before.find(name) if before else None
        if keep and old is not None and old.wanted == entry:
            made.append(old)
            continue
        new = _lock_one(name, entry, fetch, find_base)
        if old is not None and name not in accept:
            _check_continuous(old, new)
        made.append(new)
    return Lock(adapters=tuple(made))


def _lock_one(name: str, wanted: Wanted, fetch: Fetch, find_base: FindBase) -> LockedAdapter:
    pulled = fetch(wanted.asked)
    folder = _read(pulled, wanted)
    members = _members(name, wanted, pulled, folder, fetch)
    methods = [folder.manifest.method, *(read.manifest.method for _, read in members)]
    return LockedAdapter(
        name=name,
        wanted=wanted,
        adapter=_repository(pulled, folder),
        base=_base(name, wanted, folder.manifest.base, find_base),
        plugins=_plugins(methods, folder.composition.strategy if folder.composition else None),
        members=tuple(_repository(*member) for member in members),
    )


def _read(pulled: Pulled, wanted: Wanted) -> AdapterFolder:
    folder = read_folder(pulled.folder)
    refuse_problems(pulled.folder, allow=frozenset(wanted.allow))
    return folder


def _members(
    name: str, wanted: Wanted, composed: Pulled, folder: AdapterFolder, fetch: Fetch
) -> list[tuple[Pulled, AdapterFolder]]:
    if folder.composition is None:
        return []
    found = []
    for term in folder.composition.terms:
        pulled = _member(name, term, composed, fetch)
        found.append((pulled, _read(pulled, wanted)))
        weights = found[-1][1].weights_path
        if weights is not None and digests(weights).sha256 != term.sha256:
            raise IntegrityError(
                f"{name}: {term.ref} is not the adapter that its composition pins",
                hint="write the composition again: adapterhub stack",
            )
    return found


def _member(name: str, term: PinnedTerm, composed: Pulled, fetch: Fetch) -> Pulled:
    """As whoever runs the composition finds it: first where the composition itself came from."""
    if term.commit is None:
        raise FormatError(
            f"{name}: its part {term.ref} is a folder, which no lock can pin",
            hint="publish that part, then write the composition again: adapterhub stack",
        )
    ref = parse_ref(term.ref).at(term.commit)
    if ref.remote is None:
        try:
            return fetch(ref.on(composed.remote.name))
        except NotFoundError:
            pass
    return fetch(ref)


def _repository(pulled: Pulled, folder: AdapterFolder) -> LockedRepository:
    item = cache.find([pulled.remote.uri], pulled.ref)
    if item is None:  # removed by another process in between
        raise NotFoundError(f"{pulled.ref} is no longer here", hint=f"adapterhub pull {pulled.ref}")
    return LockedRepository(
        ref=pulled.ref.id,
        remote=pulled.remote.name,
        repo_uuid=item.repo_uuid,
        commit=item.commit,
        method=folder.manifest.method,
        files=tuple(
            LockedFile(path=entry.path, size=entry.size, sha256=entry.sha256 or "")
            for entry in sorted(item.files, key=lambda entry: entry.path)
        ),
    )


def _base(name: str, wanted: Wanted, own: BaseRecord, find_base: FindBase) -> BaseRecord:
    if wanted.base is None:
        return own
    spec = find_base(wanted.base)
    found = match_base(own, spec)
    if not found.fits and WRONG_BASE not in wanted.allow:
        go_on = f"; or go on with --allow {WRONG_BASE}"
        raise another_base(name, own, spec, found, beside=go_on)
    return record_of(spec)


def _plugins(methods: Collection[str], strategy: str | None) -> tuple[LockedPlugin, ...]:
    """Who brings each method and the strategy. Raises NotFoundError for one that nobody does."""
    methods = {name for name in methods if name != COMPOSITION_METHOD}
    shelves: list[tuple[Shelf[Any], str]] = [(catalog().methods, name) for name in sorted(methods)]
    if strategy is not None:
        shelves.append((catalog().strategies, strategy))
    found = []
    for shelf, name in shelves:
        shelf[name]  # says who is missing, or which two claim it
        owner = shelf.entries[name].owner
        found.append(
            LockedPlugin(brings=name, distribution=owner.distribution, version=owner.version)
        )
    return tuple(sorted(found, key=lambda plugin: plugin.brings))


def _check_continuous(old: LockedAdapter, new: LockedAdapter) -> None:
    """The same repository, in whose history what was locked still is."""
    one, other = old.adapter, new.adapter
    hint = f"if you trust what is there now: adapterhub lock --accept {old.name}"
    if (one.ref, one.remote) != (other.ref, other.remote):
        if old.wanted != new.wanted:
            return
        raise IntegrityError(
            f"{old.name}: {one.ref} was locked on {one.remote}, and {other.remote} answers now",
            hint=hint,
        )
    if one.repo_uuid != other.repo_uuid:
        raise IntegrityError(
            f"{old.name}: {one.remote}:{one.ref} was removed and made anew since it was locked",
            hint=hint,
        )
    if one.commit == other.commit:
        return
    try:
        open_remote(remotes.remote(one.remote)).resolve(one.exact)
    except UnknownRevisionError as error:
        raise IntegrityError(
            f"{old.name}: {one.remote}:{one.ref} no longer has the commit {one.commit[:12]} that "
            "was locked: its history was rewritten",
            hint=hint,
        ) from error
