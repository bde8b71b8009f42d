"""What a project wants of adapters, `adapters.toml`, and exactly what it got, `adapters.lock`.

Plain values: they say which bytes are meant and never whether those bytes are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.refs import Ref, parse_ref

WANTED_FILE = "adapters.toml"
LOCK_FILE = "adapters.lock"
LOCK_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One adapter as a person asked for it: `ref` is namespace/name, `base` the name of a base on
    this machine, `allow` the problems that are accepted."""

    ref: str
    revision: str | None = None
    remote: str | None = None
    base: str | None = None
    allow: tuple[str, ...] = ()

    @property
    def asked(self) -> Ref:
        """Raises UsageError where one of the parts is no name."""
        remote = f"{self.remote}:" if self.remote else ""
        return parse_ref(f"{remote}{self.ref}{f'@{self.revision}' if self.revision else ''}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedAdapters:
    """The whole of `adapters.toml`, by the names the project gives its adapters."""

    adapters: Mapping[str, Wanted] = field(default_factory=dict)
    schema_version: int = LOCK_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedFile:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedPlugin:
    """The distribution that brings a method or a strategy."""

    brings: str
    distribution: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedRepository:
    """One commit of one repository: `repo_uuid` tells it from a later one of the same name."""

    ref: str
    remote: str
    repo_uuid: str
    commit: str
    method: str
    files: tuple[LockedFile, ...]

    @property
    def exact(self) -> Ref:
        return parse_ref(f"{self.remote}:{self.ref}@{self.commit}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedAdapter:
    """What `wanted` was when it was locked, and what that came to.

    `base` is the base named in `wanted`, else what the adapter records of its own. `members` are
    the adapters of a composition, in its order.
    """

    name: str
    wanted: Wanted
    adapter: LockedRepository
    base: BaseRecord
    plugins: tuple[LockedPlugin, ...] = ()
    members: tuple[LockedRepository, ...] = ()

    @property
    def repositories(self) -> tuple[LockedRepository, ...]:
        return (self.adapter, *self.members)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """The whole of `adapters.lock`, by name."""

    adapters: tuple[LockedAdapter, ...] = ()
    schema_version: int = LOCK_VERSION

    def find(self, name: str) -> LockedAdapter | None:
        return next((item for item in self.adapters if item.name == name), None)


def disagreement(wanted: WantedAdapters, lock: Lock) -> str | None:
    """In what the two files differ, by name; None where the lock answers exactly what is wanted."""
    for name in sorted(wanted.adapters):
        locked = lock.find(name)
        if locked is None:
            return f"{name} is in {WANTED_FILE} and not in {LOCK_FILE}"
        if locked.wanted != wanted.adapters[name]:
            return f"{name} was locked when {WANTED_FILE} asked for something else"
    for locked in lock.adapters:
        if locked.name not in wanted.adapters:
            return f"{locked.name} is in {LOCK_FILE} and not in {WANTED_FILE}"
    return None
