"""A broken plugin is data about that plugin: its cause is kept, and its neighbours are served."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapterhub.domain.manifest import BaseRecord, Manifest, PluginRecord
from adapterhub.errors import NotFoundError, PluginError, UsageError
from adapterhub.plugin.catalog import Catalog, build, catalog
from adapterhub.plugin.host import DISABLE_VARIABLE, HOOKS, discover
from tests.plugin_folders import points_in, write_plugin

PRELUDE = "from adapterhub.plugin import Method, Strategy, Task, hookimpl\n"
SERVES = (
    PRELUDE
    + """
@hookimpl
def adapterhub_tasks():
    return [Task(name="{task}", summary="of a test", target="nowhere:Nothing")]
"""
)
STORE = "from adapterhub.plugin import hookimpl\n@hookimpl\ndef adapterhub_open_store(uri):\n"
Discovered = Callable[..., Catalog]


@pytest.fixture
def discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Discovered]:
    """Write a plugin for each module=source, and look at those alone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(DISABLE_VARIABLE, raising=False)
    before = set(sys.modules)

    def discovered(**sources: str) -> Catalog:
        for module, source in sources.items():
            write_plugin(tmp_path, module, source)
        return build(discover(points_in(tmp_path)))

    yield discovered
    for module in set(sys.modules) - before:
        del sys.modules[module]


def problem_of(found: Catalog, plugin: str) -> str:
    [problem] = [a.problem for a in found.admissions if a.origin.plugin == plugin]
    assert problem is not None
    return problem


BROKEN = {
    "a missing import": ("import nowhere_at_all", "ModuleNotFoundError: No module named"),
    "any exception": ("1 / 0", "ZeroDivisionError: division by zero (adapterhub_bad.py:1)"),
    "an exit": ("raise SystemExit(3)", "SystemExit: 3 (adapterhub_bad.py:1)"),
    "bad syntax": ("def (", "SyntaxError: "),
    "an error that cannot be printed": (
        "class E(Exception):\n    def __str__(self):\n        raise self\nraise E",
        "E: no message (adapterhub_bad.py:4)",
    ),
    "raising while declaring": (
        PRELUDE + "@hookimpl\ndef adapterhub_tasks():\n    raise OSError('no')",
        "OSError: no (adapterhub_bad.py:4)",
    ),
    "leaving while declaring": (
        PRELUDE + "@hookimpl\ndef adapterhub_tasks():\n    raise SystemExit",
        "SystemExit: no message (adapterhub_bad.py:4)",
    ),
    "another interface": ("ADAPTERHUB_API = 99", "speaks plugin API 99, this is 1"),
    "a record of the wrong kind": (
        PRELUDE + "@hookimpl\ndef adapterhub_methods():\n"
        "    return [Task(name='x', summary='', target='a:b')]",
        "adapterhub_methods declares a Task, where a list of Method records belongs",
    ),
    "no list": (
        PRELUDE + "@hookimpl\ndef adapterhub_tasks():\n    return None",
        "adapterhub_tasks declares a NoneType, where a list of Task records belongs",
    ),
    "a name that is none": (
        PRELUDE + "@hookimpl\ndef adapterhub_tasks():\n"
        "    return [Task(name=7, summary='', target='a:b')]",
        "adapterhub_tasks declares a Task whose name is 7",
    ),
    "an argument the hook does not have": (
        PRELUDE + "@hookimpl\ndef adapterhub_tasks(colour):\n    return []",
        "Argument(s) {'colour'} are declared in the hookimpl but can not be found",
    ),
    "a misspelt hook": (
        PRELUDE + "@hookimpl\ndef adapterhub_metods():\n    return []",
        "no hook is called adapterhub_metods; did you mean adapterhub_methods?",
    ),
    "a misspelt hook without its marker": (
        "def adapterhub_task():\n    return []",
        "no hook is called adapterhub_task; did you mean adapterhub_tasks?",
    ),
    "options that are no lines": (
        PRELUDE + "@hookimpl\ndef adapterhub_methods():\n    return [Method(name='x', summary='',"
        " target='', reference='', config_version=1, capabilities=frozenset(), options=['size'])]",
        "adapterhub_methods declares 'x' with options that are no dict of name and line",
    ),
    "a hook without its marker": (
        "def adapterhub_tasks():\n    return []",
        "adapterhub_tasks is not marked with @hookimpl",
    ),
}


@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_kept_with_its_cause(
    discovered: Discovered, source: str, said: str
) -> None:
    found = discovered(adapterhub_bad=source, adapterhub_good=SERVES.format(task="good"))
    assert said in problem_of(found, "adapterhub_bad")
    assert found.tasks["good"].summary == "of a test"
    assert len(found.tasks.entries) == 1


def test_the_cause_names_the_line_of_the_plugin_and_not_of_what_it_called(
    discovered: Discovered,
) -> None:
    found = discovered(adapterhub_bad="import json\n\njson.loads('{')")
    assert problem_of(found, "adapterhub_bad").endswith("(adapterhub_bad.py:3)")


def test_ctrl_c_during_discovery_is_not_a_broken_plugin(discovered: Discovered) -> None:
    with pytest.raises(KeyboardInterrupt):
        discovered(adapterhub_slow="raise KeyboardInterrupt")


def test_a_name_with_two_owners_is_served_by_neither_and_names_both(
    discovered: Discovered,
) -> None:
    found = discovered(
        adapterhub_one=SERVES.format(task="same"), adapterhub_two=SERVES.format(task="same")
    )
    with pytest.raises(PluginError) as raised:
        found.tasks["same"]
    both = "adapterhub_one (adapterhub-one 1.0) and adapterhub_two (adapterhub-two 1.0)"
    assert raised.value.message == f"the task 'same' is claimed by {both}"
    assert raised.value.hint is not None
    assert "ADAPTERHUB_DISABLE_PLUGINS=adapterhub_two" in raised.value.hint
    assert list(found.tasks) == []


def test_each_owner_of_a_taken_name_is_told_of_the_other(discovered: Discovered) -> None:
    found = discovered(
        adapterhub_one=SERVES.format(task="same"), adapterhub_two=SERVES.format(task="same")
    )
    said = [found.refused(admission.origin) for admission in found.admissions]
    assert said == [
        ("the task 'same' is claimed by adapterhub_two (adapterhub-two 1.0) too",),
        ("the task 'same' is claimed by adapterhub_one (adapterhub-one 1.0) too",),
    ]


def test_two_distributions_may_call_their_entry_points_the_same(
    tmp_path: Path, discovered: Discovered
) -> None:
    write_plugin(tmp_path, "adapterhub_one", SERVES.format(task="one"), name="tasks")
    write_plugin(tmp_path, "adapterhub_two", SERVES.format(task="two"), name="tasks")
    assert [entry.record.name for entry in discovered().tasks] == ["one", "two"]


SWITCHED_OFF = {
    "adapterhub_one": {"adapterhub_one"},
    "adapterhub_one,adapterhub_three": {"adapterhub_one", "adapterhub_three"},
    " adapterhub_one , adapterhub_two ": {"adapterhub_one", "adapterhub_two"},
    "all": {"adapterhub_one", "adapterhub_two", "adapterhub_three"},
    "": set(),
    "nobody": set(),
}


@pytest.mark.parametrize(("value", "off"), SWITCHED_OFF.items(), ids=SWITCHED_OFF)
def test_plugins_are_switched_off_by_name(
    discovered: Discovered, monkeypatch: pytest.MonkeyPatch, value: str, off: set[str]
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, value)
    names = ("one", "two", "three")
    found = discovered(**{f"adapterhub_{name}": SERVES.format(task=name) for name in names})
    assert {a.origin.plugin for a in found.admissions if a.disabled} == off
    assert {f"adapterhub_{entry.record.name}" for entry in found.tasks} == {
        f"adapterhub_{name}" for name in names
    } - off


def test_a_switched_off_plugin_is_not_even_imported(
    discovered: Discovered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "adapterhub_bad")
    assert discovered(adapterhub_bad="1 / 0").admissions[0].problem is None


@pytest.mark.parametrize(
    "shelf", ["methods", "trainers", "backends", "strategies", "tasks", "destinations"]
)
def test_an_unknown_name_says_what_is_known(discovered: Discovered, shelf: str) -> None:
    with pytest.raises(NotFoundError, match="nothing-like-it") as raised:
        getattr(discovered(), shelf)["nothing-like-it"]
    assert raised.value.hint == "known: none; `adapterhub plugins` says why"


def test_a_near_miss_says_what_was_meant(discovered: Discovered) -> None:
    found = discovered(adapterhub_one=SERVES.format(task="iso-dates"))
    with pytest.raises(NotFoundError) as raised:
        found.tasks["iso-date"]
    assert raised.value.hint == "did you mean 'iso-dates'?"


METHOD = (
    PRELUDE
    + """
@hookimpl
def adapterhub_methods():
    return [Method(name="vera", summary="", target="nowhere:Nothing", reference="",
                   config_version=1, capabilities=frozenset())]
"""
)


def test_a_stored_adapter_says_which_plugin_its_method_came_from(discovered: Discovered) -> None:
    there = discovered(adapterhub_vera=METHOD)
    plugin = there.plugin_of("vera")
    assert plugin == PluginRecord(distribution="adapterhub-vera", version="1.0")
    made = Manifest(method="vera", config_version=1, base=BaseRecord(id="a/b"), plugin=plugin)
    assert there.method_for(made).name == "vera"
    elsewhere = build(discover([]))
    with pytest.raises(NotFoundError, match="no method is called 'vera'") as raised:
        elsewhere.method_for(made)
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("it was made with adapterhub-vera 1.0;")
    assert raised.value.hint.endswith("pip install adapterhub-vera")


def test_a_stored_adapter_of_no_known_plugin_is_told_what_is_near(discovered: Discovered) -> None:
    found = discovered(adapterhub_vera=METHOD)
    made = Manifest(method="verra", config_version=1, base=BaseRecord(id="a/b"))
    with pytest.raises(NotFoundError) as raised:
        found.method_for(made)
    assert raised.value.hint == "did you mean 'vera'?"


def test_our_own_methods_need_no_plugin_but_adapterhub() -> None:
    assert catalog().plugin_of("lora") is None


# --- stores ---------------------------------------------------------------------------------


def test_a_store_plugin_that_raises_does_not_stop_the_next_one(discovered: Discovered) -> None:
    found = discovered(
        adapterhub_a_good=STORE + "    return 'the store' if uri == 'shelf://x' else None",
        adapterhub_b_bad=STORE + "    raise SystemExit('never again')",
    )
    assert str(found.open_store("shelf://x")) == "the store"


def test_a_store_plugin_that_raises_is_named_when_nobody_else_answers(
    discovered: Discovered,
) -> None:
    found = discovered(adapterhub_bad=STORE + "    return uri.nonsense")
    with pytest.raises(PluginError, match=r"adapterhub_bad \(adapterhub-bad 1.0\): Attribute"):
        found.open_store("shelf://x")


def test_an_address_nobody_knows_is_a_usage_error(discovered: Discovered) -> None:
    with pytest.raises(UsageError, match="no plugin can open 'shelf://x'"):
        discovered(adapterhub_shy=STORE + "    return None").open_store("shelf://x")


def test_every_hook_is_one_the_host_knows() -> None:
    from adapterhub.plugin import hookspecs

    assert sorted(HOOKS) == sorted(n for n in vars(hookspecs) if n.startswith("adapterhub_"))
