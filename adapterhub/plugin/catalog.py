"""Everything plugins declared, by kind and name, each with its owner.

Two plugins that claim one name are both named and neither is served: a silent winner would make
an installed package change what a word means.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from adapterhub.domain.destination import Destination
from adapterhub.domain.manifest import MERGED, Manifest, PluginRecord
from adapterhub.domain.method import Method, QuantBackend, Strategy, Task, Trainer
from adapterhub.domain.stores import Store
from adapterhub.errors import NotFoundError, PluginError, UsageError
from adapterhub.plugin.host import DISABLE_VARIABLE, Admission, Host, Origin, discover
from adapterhub.plugin.markers import PROJECT
from adapterhub.plugin.trace import timed

R = TypeVar("R", Method, Trainer, QuantBackend, Strategy, Task, Destination)


@dataclass(frozen=True, slots=True)
class Entry(Generic[R]):
    record: R
    owner: Origin


@dataclass(frozen=True, slots=True)
class Shelf(Generic[R]):
    """The records of one kind. `taken` holds the names that two owners claimed."""

    kind: str
    entries: Mapping[str, Entry[R]]
    taken: Mapping[str, tuple[Origin, ...]]

    def __iter__(self) -> Iterator[Entry[R]]:
        return iter(entry for _, entry in sorted(self.entries.items()))

    def __getitem__(self, name: str) -> R:
        """Raises PluginError for a name with two owners, NotFoundError with a did-you-mean."""
        if name in self.taken:
            owners = " and ".join(str(origin) for origin in self.taken[name])
            raise PluginError(
                f"the {self.kind} {name!r} is claimed by {owners}",
                hint=f"uninstall one, or set {DISABLE_VARIABLE}={self.taken[name][-1].plugin}",
            )
        if name not in self.entries:
            raise NotFoundError(f"no {self.kind} is called {name!r}", hint=self._hint(name))
        return self.entries[name].record

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.entries, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
        known = ", ".join(sorted(self.entries)) or "none; `adapterhub plugins` says why"
        return f"known: {known}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is on offer, frozen once every plugin was looked at."""

    host: Host
    methods: Shelf[Method]
    trainers: Shelf[Trainer]
    backends: Shelf[QuantBackend]
    strategies: Shelf[Strategy]
    tasks: Shelf[Task]
    destinations: Shelf[Destination]

    @property
    def admissions(self) -> tuple[Admission, ...]:
        return self.host.admissions

    def backend_for(self, scheme: str) -> QuantBackend:
        """The backend that stores this scheme. Raises NotFoundError or PluginError."""
        owners = [entry.record for entry in self.backends if scheme in entry.record.schemes]
        if not owners:
            raise NotFoundError(
                f"no installed backend stores {scheme}",
                hint="`adapterhub plugins` shows what is installed and what is broken",
            )
        if len(owners) > 1:
            names = " and ".join(record.name for record in owners)
            raise PluginError(
                f"the scheme {scheme} is claimed by the backends {names}",
                hint=f"switch one off with {DISABLE_VARIABLE}",
            )
        return owners[0]

    def method_for(self, manifest: Manifest) -> Method:
        """The method of a stored adapter. Raises PluginError for a name with two owners, and
        NotFoundError saying which plugin its author used, where the manifest says so, or that it
        is no adapter."""
        name, plugin = manifest.method, manifest.plugin
        if name == MERGED and name not in self.methods.entries:
            raise NotFoundError(
                "this is a whole model that adapters were merged into, and no adapter",
                hint="keep it as a base: adapterhub base add NAME FOLDER",
            )
        if plugin is None or name in self.methods.entries or name in self.methods.taken:
            return self.methods[name]
        raise NotFoundError(
            f"no method is called {name!r}",
            hint=f"it was made with {plugin.distribution} {plugin.version}; if you trust that "
            f"package: pip install {plugin.distribution}",
        )

    def plugin_of(self, method: str) -> PluginRecord | None:
        """Who has to be installed for this method; None where adapterhub alone will do."""
        entry = self.methods.entries.get(method)
        if entry is None or entry.owner.distribution == PROJECT:
            return None
        return PluginRecord(distribution=entry.owner.distribution, version=entry.owner.version)

    def exporter_for(self, form: str) -> Destination:
        """The destination that writes this format. Raises NotFoundError or PluginError."""
        found = {e.record.exports: e for e in self.destinations if e.record.exports}
        owners = [e.owner for e in self.destinations if e.record.exports == form]
        if not owners:
            raise NotFoundError(
                f"nothing installed writes the format {form!r}",
                hint=f"known: {', '.join(sorted(found)) or 'none'}",
            )
        if len(owners) > 1:
            raise PluginError(
                f"the format {form} is claimed by {' and '.join(map(str, owners))}",
                hint=f"switch one off with {DISABLE_VARIABLE}",
            )
        return found[form].record

    def open_store(self, uri: str) -> Store:
        """The store that speaks this URI. Raises UsageError when no plugin does, PluginError when
        one failed that might have."""
        store: Store | None
        store, problems = self.host.open_store(uri)
        if store is None and problems:
            raise PluginError(
                f"no plugin opened {uri!r}, and one failed: {problems[0]}",
                hint=f"upgrade or uninstall it, or switch it off with {DISABLE_VARIABLE}",
            )
        if store is None:
            raise UsageError(
                f"no plugin can open {uri!r}",
                hint="a remote is a folder (file:///path) or a hub (https://...)",
            )
        return store

    def refused(self, origin: Origin) -> tuple[str, ...]:
        """What a plugin declares in vain, because another one claims the same name."""
        shelves: tuple[Shelf[Any], ...] = (
            self.methods, self.trainers, self.backends, self.strategies, self.tasks,
            self.destinations,
        )  # fmt: skip
        found = []
        for shelf in shelves:
            for name, owners in shelf.taken.items():
                if origin in owners:
                    others = [str(owner) for owner in owners if owner != origin]
                    found.append(
                        f"the {shelf.kind} {name!r} is claimed by {' and '.join(others)} too"
                        if others
                        else f"the {shelf.kind} {name!r} is declared twice"
                    )
        return tuple(found)


def build(host: Host) -> Catalog:
    """Sort every record onto its shelf."""
    return Catalog(
        host=host,
        methods=_shelf("method", "adapterhub_methods", host.admissions),
        trainers=_shelf("trainer", "adapterhub_trainers", host.admissions),
        backends=_shelf("backend", "adapterhub_backends", host.admissions),
        strategies=_shelf("strategy", "adapterhub_strategies", host.admissions),
        tasks=_shelf("task", "adapterhub_tasks", host.admissions),
        destinations=_shelf("destination", "adapterhub_destinations", host.admissions),
    )


@functools.cache
def catalog() -> Catalog:
    """The catalog of this process, made at first use."""
    return build(discover())


def load_target(target: str) -> Any:
    """Import `module:attribute`. Raises PluginError when it does not lead anywhere.

    A missing third-party module is let through: the command's edge knows which extra brings it.
    """
    module, _, attribute = target.partition(":")
    try:
        with timed("target", target):
            return getattr(import_module(module), attribute)
    except AttributeError as error:
        raise PluginError(
            f"{target} does not exist, though a plugin declares it",
            hint="`adapterhub plugins` names the plugin; reinstall or report it",
        ) from error


def _shelf(kind: str, hook: str, admissions: Iterable[Admission]) -> Shelf[Any]:
    claims: dict[str, list[Entry[Any]]] = {}
    for admission in admissions:
        for record in admission.records.get(hook, ()):
            claims.setdefault(record.name, []).append(Entry(record, admission.origin))
    return Shelf(
        kind=kind,
        entries={name: found[0] for name, found in claims.items() if len(found) == 1},
        taken={
            name: tuple(entry.owner for entry in found)
            for name, found in claims.items()
            if len(found) > 1
        },
    )
