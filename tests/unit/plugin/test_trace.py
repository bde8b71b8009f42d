"""ADAPTERHUB_TRACE_PLUGINS says what happens to each plugin, and changes nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapterhub.plugin.catalog import Catalog, build, load_target
from adapterhub.plugin.host import DISABLE_VARIABLE, discover
from adapterhub.plugin.trace import TRACE_VARIABLE
from tests.plugin_folders import points_in, write_plugin

PRELUDE = "from adapterhub.plugin import Task, hookimpl\n@hookimpl\n"
SOURCES = {
    "adapterhub_good": PRELUDE
    + "def adapterhub_tasks():\n    return [Task(name='good', summary='', target='nowhere:It')]",
    "adapterhub_lost": "import nowhere_at_all",
    "adapterhub_odd": PRELUDE + "def adapterhub_tasks():\n"
    "    class Odd:\n        __str__ = __repr__ = name = property(lambda s: 1 / 0)\n"
    "    return [Odd()]",
    "adapterhub_off": "raise SystemExit",
    "adapterhub_shop": PRELUDE
    + "def adapterhub_open_store(uri):\n    return object() if uri.startswith('shop') else None",
}


@pytest.fixture
def discovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Catalog]]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(TRACE_VARIABLE, "1")
    monkeypatch.setenv(DISABLE_VARIABLE, "adapterhub_off")
    before = set(sys.modules)
    for module, source in SOURCES.items():
        write_plugin(tmp_path, module, source)
    yield lambda: build(discover(points_in(tmp_path)))
    for module in set(sys.modules) - before:
        del sys.modules[module]


def lines(text: str) -> list[str]:
    """Without times, and without what follows the origin's distribution."""
    assert all(line.startswith("plugins: ") for line in text.splitlines())
    plain = re.sub(r" \(adapterhub-\w+ 1\.0\)|  [0-9.]+ ms$", "", text, flags=re.MULTILINE)
    return [line.removeprefix("plugins: ") for line in plain.splitlines()]


def test_every_step_is_told(
    discovered: Callable[[], Catalog], capsys: pytest.CaptureFixture[str]
) -> None:
    discovered()
    err = capsys.readouterr().err
    said = lines(err)
    assert "adapterhub_good: import adapterhub_good" in said
    assert "adapterhub_good: adapterhub_tasks() -> Task good" in said
    assert "adapterhub_good: admitted" in said
    assert "adapterhub_lost: import adapterhub_lost raised ModuleNotFoundError" in said
    assert "adapterhub_odd: adapterhub_tasks() -> Odd" in said
    assert "adapterhub_off: switched off" in said
    assert [line for line in said if line.startswith("adapterhub_lost: broken: ModuleNotFound")]
    assert re.search(r"adapterhub_tasks\(\) -> Task good  [0-9]+\.[0-9] ms", err)


def test_broken_plugins_are_still_data(discovered: Callable[[], Catalog]) -> None:
    found = discovered()
    problems = {a.origin.plugin: a.problem for a in found.admissions if a.problem}
    assert set(problems) == {"adapterhub_lost", "adapterhub_odd"}
    assert set(found.tasks.entries) == {"good"}


def test_who_opens_a_store_is_told_and_its_password_is_not(
    discovered: Callable[[], Catalog], capsys: pytest.CaptureFixture[str]
) -> None:
    found = discovered()
    capsys.readouterr()
    found.open_store("shop://user:secret@host")
    err = capsys.readouterr().err
    assert lines(err) == ["adapterhub_shop: adapterhub_open_store(shop:...) -> object"]
    assert "secret" not in err


def test_the_import_of_a_target_is_told(
    discovered: Callable[[], Catalog], capsys: pytest.CaptureFixture[str]
) -> None:
    discovered()
    capsys.readouterr()
    load_target("adapterhub_good:Task")
    assert lines(capsys.readouterr().err) == ["target: adapterhub_good:Task"]


@pytest.mark.parametrize("value", ["", "0"])
def test_it_is_silent_unless_it_is_asked_for(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TRACE_VARIABLE, value)
    discover()
    assert capsys.readouterr().err == ""
