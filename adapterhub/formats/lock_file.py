"""The bytes of `adapters.toml` and `adapters.lock`.

Equal values give equal bytes. Knows both files' rules; what they name is fetched by others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import tomli_w

from adapterhub.domain.digest import is_sha256
from adapterhub.domain.lock import (
    LOCK_FILE,
    LOCK_VERSION,
    WANTED_FILE,
    Lock,
    LockedRepository,
    Wanted,
    WantedAdapters,
)
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import FormatError, UsageError
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_toml import loads_toml

MAX_LOCK_BYTES = 10_000_000
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_BY_HAND = 'write [adapters.NAME] and, below it, ref = "user/name"'
_ANEW = "write it again: adapterhub lock"
_HEAD = b"# Written by `adapterhub lock`; adapters.toml is the file to edit.\n"


def new_wanted() -> bytes:
    """An `adapters.toml` in which nothing is wanted yet."""
    return f"schema_version = {LOCK_VERSION}\n".encode()


def decode_wanted(data: bytes, *, name: str = WANTED_FILE) -> WantedAdapters:
    """Raises FormatError naming file and field."""
    found = to_domain(loads_toml(data, name=name, hint=_BY_HAND), WantedAdapters, name=name)
    _check_version(found.schema_version, name)
    _check_names(found.adapters, name)
    for key, wanted in found.adapters.items():
        _check_ref(f"{name}: adapters.{key}", wanted)
    return found


def with_wanted(data: bytes, key: str, wanted: Wanted) -> bytes:
    """The file with one adapter more at its end; what a person wrote, comments included, stays.

    Raises UsageError where the name is taken or cannot be one, or the file's form leaves no room.
    """
    present = decode_wanted(data)
    if key in present.adapters:
        raise UsageError(
            f"{WANTED_FILE} already has an adapter called {key!r}",
            hint=f"edit it there, or choose another name: --name {key}-2",
        )
    plain = {name: value for name, value in to_plain(wanted).items() if value != []}
    table = tomli_w.dumps({"adapters": {key: plain}})
    made = data.rstrip(b"\n") + b"\n\n" + table.encode()
    try:
        after = decode_wanted(made)
    except FormatError as error:
        raise UsageError(
            f"{key!r} cannot be added to {WANTED_FILE}: {error.message}", hint=_BY_HAND
        ) from error
    if dict(after.adapters) != {**present.adapters, key: wanted}:
        raise UsageError(f"{key!r} cannot be added to {WANTED_FILE} as it is", hint=_BY_HAND)
    return made


def encode_lock(lock: Lock) -> bytes:
    """Adapters by name, files by path: the same lock always has the same bytes."""
    ordered = sorted(lock.adapters, key=lambda item: item.name)
    return _HEAD + tomli_w.dumps(to_plain(replace(lock, adapters=tuple(ordered)))).encode()


def decode_lock(data: bytes, *, name: str = LOCK_FILE) -> Lock:
    """Raises FormatError naming file and field."""
    table = loads_toml(data, name=name, hint=_ANEW, max_bytes=MAX_LOCK_BYTES)
    lock = to_domain(table, Lock, name=name)
    _check_version(lock.schema_version, name)
    names = [item.name for item in lock.adapters]
    _check_names(names, name)
    for item in lock.adapters:
        _check_ref(f"{name}: {item.name}", item.wanted)
        for repository in item.repositories:
            _check_repository(f"{name}: {item.name}", repository)
    return lock


def _check_version(version: int, name: str) -> None:
    if version != LOCK_VERSION:
        raise FormatError(
            f"{name}: schema_version {version}, and this release reads {LOCK_VERSION}",
            hint="upgrade adapterhub",
        )


def _check_names(names: Iterable[str], file: str) -> None:
    """A name becomes a folder, so it follows the rules of an adapter's own name."""
    seen: dict[str, str] = {}
    for name in names:
        try:
            parse_ref(f"x/{name}")
        except UsageError as error:
            raise FormatError(
                f"{file}: adapters: {name!r} cannot be a name", hint=error.hint
            ) from None
        if name.casefold() in seen:
            raise FormatError(
                f"{file}: adapters: {seen[name.casefold()]!r} and {name!r} are one folder on some "
                "systems",
                hint="rename one of them",
            )
        seen[name.casefold()] = name


def _check_ref(where: str, wanted: Wanted) -> None:
    try:
        asked = wanted.asked
    except UsageError as error:
        raise FormatError(f"{where}: {error.message}", hint=error.hint) from None
    # A ref may also hold a remote and a revision; here those have keys of their own.
    if (asked.id, asked.remote, asked.revision) != (wanted.ref, wanted.remote, wanted.revision):
        raise FormatError(
            f"{where}: ref: {wanted.ref!r} is more than a name",
            hint="write `revision` and `remote` as keys of their own",
        )


def _check_repository(where: str, repository: LockedRepository) -> None:
    if not _COMMIT.fullmatch(repository.commit):
        raise FormatError(f"{where}: commit: {repository.commit!r} is none", hint=_ANEW)
    try:
        exact = repository.exact
    except UsageError as error:
        raise FormatError(f"{where}: {error.message}", hint=error.hint) from None
    if exact.id != repository.ref:
        raise FormatError(f"{where}: ref: {repository.ref!r} is more than a name", hint=_ANEW)
    if not repository.files:
        raise FormatError(f"{where}: files: there are none", hint=_ANEW)
    paths = [file.path for file in repository.files]
    if paths != sorted(set(paths)):
        raise FormatError(f"{where}: files: not in order, or named twice", hint=_ANEW)
    for file in repository.files:
        if not is_sha256(file.sha256) or file.size < 0:
            raise FormatError(f"{where}: {file.path}: no size and sha256", hint=_ANEW)
