"""Find plugins by entry point and admit each inside a fence.

A plugin that cannot be imported, speaks another API version or raises while declaring is kept as
data with its cause, so that `adapterhub plugins` can show it and no other command notices.
Never imports a plugin by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from adapterhub.plugin import hookspecs
from adapterhub.plugin.markers import ADAPTERHUB_API, PROJECT

GROUP = "adapterhub"
DISABLE_VARIABLE = "ADAPTERHUB_DISABLE_PLUGINS"
RECORD_HOOKS = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith("adapterhub_") and name != "adapterhub_open_store"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a plugin comes from: its entry point and the distribution that carries it."""

    plugin: str
    distribution: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution} {self.version})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """A plugin that was looked at: its records by hook, or why it is broken or switched off."""

    origin: Origin
    records: dict[str, tuple[Any, ...]]
    problem: str | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """Every plugin found, and the pluggy manager that holds the ones admitted."""

    admissions: tuple[Admission, ...]
    manager: pluggy.PluginManager


def discover(points: Iterable[EntryPoint] | None = None) -> Host:
    """Look at every entry point of the group, in name order."""
    found = entry_points(group=GROUP) if points is None else points
    blocked = {name for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name}
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    admissions = [
        _admit(point, manager, blocked=blocked) for point in sorted(found, key=lambda p: p.name)
    ]
    return Host(tuple(admissions), manager)


def _admit(point: EntryPoint, manager: pluggy.PluginManager, *, blocked: set[str]) -> Admission:
    origin = _origin(point)
    if point.name in blocked or "all" in blocked:
        return Admission(origin=origin, records={}, disabled=True)
    # The one fence: whatever a stranger's module raises, Ctrl-C excepted, becomes its status line.
    try:
        module = point.load()
        version = getattr(module, "ADAPTERHUB_API", ADAPTERHUB_API)
        if version != ADAPTERHUB_API:
            return _broken(origin, f"speaks plugin API {version}, this is {ADAPTERHUB_API}")
        manager.register(module, name=origin.plugin)
        manager.check_pending()
        records = {hook: _declared(module, hook) for hook in RECORD_HOOKS}
    except (Exception, SystemExit) as error:
        if manager.has_plugin(origin.plugin):
            manager.unregister(name=origin.plugin)
        return _broken(origin, _cause(error))
    return Admission(origin=origin, records=records)


def _declared(module: Any, hook: str) -> tuple[Any, ...]:
    implementation: Callable[[], Iterable[Any]] | None = getattr(module, hook, None)
    return () if implementation is None else tuple(implementation())


def _broken(origin: Origin, problem: str) -> Admission:
    return Admission(origin=origin, records={}, problem=problem)


def _cause(error: BaseException) -> str:
    """`ImportError: no module named 'foo' (houlsby.py:3)`: the innermost frame is the plugin's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
    text = str(error).splitlines()[0] if str(error) else "no message"
    return f"{type(error).__name__}: {text}{where}"


def _origin(point: EntryPoint) -> Origin:
    distribution = point.dist
    return Origin(
        plugin=point.name,
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "?",
        module=point.module,
    )
