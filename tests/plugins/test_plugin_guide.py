"""plugins/README.md keeps its word: each hook has its heading, and the example works."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapterhub.plugin import hookspecs

GUIDE = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()
FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
HOOKS = {
    f"{name}({', '.join(inspect.signature(value).parameters)})": value
    for name, value in vars(hookspecs).items()
    if name.startswith("adapterhub_")
}
USE = """
import json
from adapterhub.evaluate.tasks.load import load_task
from adapterhub.plugin.catalog import catalog, load_target
rows = load_target(catalog().tasks["backwards"].target)().train_rows(200)
held_out = load_task("backwards", limit=20)
trained = {row["messages"][1]["content"] for row in rows}
asked = {item.messages[-1].content for item in held_out.items}
print(json.dumps([len(trained), len(asked), len(trained & asked), held_out.items[0].answer]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example of the guide, installed; an environment in which it is found."""
    place = tmp_path_factory.mktemp("example")
    for match in FILE.finditer(GUIDE):
        path = place / "source" / match["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["text"])
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, "--target", str(place / "site"), str(place / "source"), environment=os.environ.copy())
    home = {"ADAPTERHUB_HOME": str(place / "home")}
    return {**os.environ, **home, "PYTHONPATH": str(place / "site")}


def run(*words: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_its_heading_and_its_line_in_the_table(hook: str) -> None:
    assert f"### `{hook}`\n" in GUIDE
    assert f"| `{hook}` |" in GUIDE


def test_no_heading_is_of_a_hook_that_is_gone() -> None:
    assert set(re.findall(r"^### `(adapterhub_.*)`$", GUIDE, re.MULTILINE)) == set(HOOKS)


def test_the_example_is_listed_once_it_is_installed(installed: dict[str, str]) -> None:
    command = "from adapterhub.cli.main import run; run()"
    listed = json.loads(run("-c", command, "plugins", "--json", environment=installed))
    [ours] = [line for line in listed if line["plugin"] == "backwards"]
    assert ours == {
        "plugin": "backwards",
        "distribution": "adapterhub-backwards",
        "version": "0.1.0",
        "module": "adapterhub_backwards",
        "offers": ["backwards"],
        "problem": None,
        "disabled": False,
    }


def test_the_example_trains_and_measures_on_different_words(installed: dict[str, str]) -> None:
    trained, asked, both, answer = json.loads(run("-c", USE, environment=installed))
    assert (asked, both) == (20, 0)
    assert trained > 100
    assert len(answer) == 4


def test_the_variable_and_the_mark_are_called_what_the_guide_calls_them() -> None:
    from adapterhub.plugin.host import DISABLE_VARIABLE

    assert f"{DISABLE_VARIABLE}=all adapterhub plugins" in GUIDE
    assert "marked with `!`" in GUIDE
