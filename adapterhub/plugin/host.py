"""Find plugins by entry point and admit each inside a fence.

A plugin that cannot be imported, speaks another API version, raises while declaring or declares
something else than it should is kept as data with its cause, so that `adapterhub plugins` can show
it and no other command notices. Never imports a plugin by name.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from adapterhub.domain.destination import Destination
from adapterhub.domain.method import Method, QuantBackend, Strategy, Task, Trainer
from adapterhub.plugin import hookspecs
from adapterhub.plugin.markers import ADAPTERHUB_API, PROJECT
from adapterhub.plugin.trace import names_of, tell, timed

GROUP = "adapterhub"
DISABLE_VARIABLE = "ADAPTERHUB_DISABLE_PLUGINS"
RECORD_HOOKS: Mapping[str, type] = {
    "adapterhub_methods": Method,
    "adapterhub_trainers": Trainer,
    "adapterhub_backends": QuantBackend,
    "adapterhub_strategies": Strategy,
    "adapterhub_tasks": Task,
    "adapterhub_destinations": Destination,
}
STORE_HOOK = "adapterhub_open_store"
HOOKS = (*RECORD_HOOKS, STORE_HOOK)


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

    def open_store(self, uri: str) -> tuple[Any, tuple[str, ...]]:
        """(the first store a plugin answers with, what was wrong with those that raised)."""
        plugins = list(self.manager.get_plugins())
        problems: list[str] = []
        for admission in reversed(self.admissions):
            plugin = self.manager.get_plugin(str(admission.origin))
            if plugin is None:
                continue
            others = [other for other in plugins if other is not plugin]
            # Not the whole address, which may hold a password.
            asked = f"{STORE_HOOK}({uri.partition(':')[0]}:...)"
            # The fence again: this one question is asked after a plugin was admitted.
            try:
                with timed(admission.origin, asked) as answer:
                    store = self.manager.subset_hook_caller(STORE_HOOK, others)(uri=uri)
                    answer(type(store).__name__)
            except (Exception, SystemExit) as error:
                problems.append(f"{admission.origin}: {_cause(error, admission.origin)}")
            else:
                if store is not None:
                    return store, tuple(problems)
        return None, tuple(problems)


def discover(points: Iterable[EntryPoint] | None = None) -> Host:
    """Look at every entry point of the group, in name order."""
    found = entry_points(group=GROUP) if points is None else points
    blocked = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")}
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    admissions = []
    for point in sorted(found, key=lambda p: p.name):
        admission = _admit(point, manager, blocked=blocked)
        state = "switched off" if admission.disabled else "admitted"
        tell(admission.origin, f"broken: {admission.problem}" if admission.problem else state)
        admissions.append(admission)
    return Host(tuple(admissions), manager)


def _admit(point: EntryPoint, manager: pluggy.PluginManager, *, blocked: set[str]) -> Admission:
    origin = _origin(point)
    if point.name in blocked or "all" in blocked:
        return Admission(origin=origin, records={}, disabled=True)
    # Not by the entry point's name alone: two distributions may choose the same one.
    key = str(origin)
    # The one fence: whatever a stranger's module raises, Ctrl-C excepted, becomes its status line.
    try:
        with timed(origin, f"import {point.value}"):
            module = point.load()
        version = getattr(module, "ADAPTERHUB_API", ADAPTERHUB_API)
        if version != ADAPTERHUB_API:
            return _broken(origin, f"speaks plugin API {version}, this is {ADAPTERHUB_API}")
        slip = _slip(module, manager)
        if slip is not None:
            return _broken(origin, slip)
        manager.register(module, name=key)
        records = {hook: _declared(module, hook, origin) for hook in RECORD_HOOKS}
        wrong = _wrong_record(records)
    except (Exception, SystemExit) as error:
        records, wrong = {}, _cause(error, origin)
    if wrong is not None:
        if manager.has_plugin(key):
            manager.unregister(name=key)
        return _broken(origin, wrong)
    return Admission(origin=origin, records=records)


def _slip(module: Any, manager: pluggy.PluginManager) -> str | None:
    """A hook that would never be called: a name nobody knows, or no marker above it."""
    for name in dir(module):
        value = getattr(module, name)
        if not (name.startswith("adapterhub_") and inspect.isroutine(value)):
            continue
        marked = manager.parse_hookimpl_opts(module, name) is not None
        ours = getattr(value, "__module__", None) == getattr(module, "__name__", "")
        if name not in HOOKS and (marked or ours):
            close = difflib.get_close_matches(name, HOOKS, n=1)
            return f"no hook is called {name}" + (f"; did you mean {close[0]}?" if close else "")
        if name in HOOKS and not marked:
            return f"{name} is not marked with @hookimpl"
    return None


def _declared(module: Any, hook: str, origin: Origin) -> tuple[Any, ...]:
    implementation: Callable[[], Iterable[Any]] | None = getattr(module, hook, None)
    if implementation is None:
        return ()
    with timed(origin, f"{hook}()") as answer:
        found = implementation()
        records = tuple(found) if isinstance(found, (list, tuple)) else (found,)
        answer(names_of(records, RECORD_HOOKS[hook]))
    return records


def _wrong_record(records: Mapping[str, tuple[Any, ...]]) -> str | None:
    for hook, found in records.items():
        of = RECORD_HOOKS[hook]
        for record in found:
            if not isinstance(record, of):
                kind = type(record).__name__
                return f"{hook} declares a {kind}, where a list of {of.__name__} records belongs"
            name = record.name  # type: ignore[attr-defined]
            if not (isinstance(name, str) and name.strip() and name.isprintable()):
                return f"{hook} declares a {of.__name__} whose name is {name!r}"
            lines = getattr(record, "options", {})
            texts = [*lines, *lines.values()] if isinstance(lines, dict) else [None]
            if not all(isinstance(text, str) for text in texts):
                return f"{hook} declares {name!r} with options that are no dict of name and line"
    return None


def _broken(origin: Origin, problem: str) -> Admission:
    return Admission(origin=origin, records={}, problem=problem)


def _cause(error: BaseException, origin: Origin) -> str:
    """`ImportError: no module named 'foo' (houlsby.py:3)`, where the plugin stood when it fell."""
    where = ""
    trace = error.__traceback__
    package = origin.module.partition(".")[0]
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if module.partition(".")[0] == package:
            where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    # pluggy says what is wrong in its last line, everybody else in the first.
    line = -1 if isinstance(error, pluggy.PluginValidationError) else 0
    text = (_text(error).strip() or "no message").splitlines()[line]
    return f"{type(error).__name__}: {text}{where}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a stranger's __str__
        return ""


def _origin(point: EntryPoint) -> Origin:
    distribution = point.dist
    return Origin(
        plugin=point.name,
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "?",
        module=point.module,
    )
