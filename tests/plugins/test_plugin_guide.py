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

from adapterhub import testing
from adapterhub.domain.method import Capability
from adapterhub.plugin import hookspecs
from adapterhub.plugin.catalog import catalog
from adapterhub.plugin.host import DISABLE_VARIABLE
from adapterhub.plugin.scaffold import write_plugin
from adapterhub.plugin.trace import TRACE_VARIABLE
from adapterhub.testing import MethodConformance
from adapterhub.testing.table import skip_table

GUIDE = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()
FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
HOOKS = {
    f"{name}({', '.join(inspect.signature(value).parameters)})": value
    for name, value in vars(hookspecs).items()
    if name.startswith("adapterhub_")
}
USE = """
import json, sys
from pathlib import Path
from adapterhub.domain.recipe import Recipe
from adapterhub.hub.folder import read_folder
from adapterhub.runtime.engine import open_engine
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.run import train_adapter
from adapterhub.trust.effect import measure_effect
home = Path(sys.argv[1])
base = add_tiny_base("phi3", "nf4", home)
rows = home / "rows.jsonl"
rows.write_text('{"prompt": "2 + 2", "completion": "4"}\\n' * 4)
recipe = Recipe(base=base.spec.name, data=str(rows), method="bitfit", steps=6, batch_size=4,
                learning_rate=1e-2)
run = train_adapter(recipe, home / "my-biases", base=base)
engine = open_engine(base)
engine.rack.attach("mine", read_folder(run.folder))
effect = measure_effect(engine, (("mine", 1.0),))
losses = [step.loss for step in run.outcome.steps]
print(json.dumps([run.manifest.method, losses[-1] < losses[0], effect.relative > 1e-3]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example of the guide, installed; an environment in which it is found."""
    place = tmp_path_factory.mktemp("example")
    (place / "source").mkdir()
    write_plugin(place / "source", "bitfit", "method")
    for name, text in shown():
        (place / "source" / name).write_text(text)
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, "--target", str(place / "site"), str(place / "source"), environment=os.environ.copy())
    home = {"ADAPTERHUB_HOME": str(place / "home"), "PLACE": str(place)}
    paths = [str(place / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **home, "PYTHONPATH": os.pathsep.join(paths)}


def shown() -> list[tuple[str, str]]:
    return [(match["name"], match["text"]) for match in FILE.finditer(GUIDE)]


def run(*words: str, environment: dict[str, str], folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_its_heading_and_its_line_in_the_table(hook: str) -> None:
    assert f"### `{hook}`\n" in GUIDE
    assert f"| `{hook}` |" in GUIDE


def test_no_heading_is_of_a_hook_that_is_gone() -> None:
    assert set(re.findall(r"^### `(adapterhub_.*)`$", GUIDE, re.MULTILINE)) == set(HOOKS)


def test_the_guide_shows_what_plugins_new_writes(tmp_path: Path) -> None:
    written = {str(path) for path in write_plugin(tmp_path, "bitfit", "method")}
    assert written - {name for name, _ in shown()} == {"README.md"}
    for name, text in shown():
        assert text == (tmp_path / name).read_text(), name


def test_the_example_is_listed_once_it_is_installed(installed: dict[str, str]) -> None:
    command = "from adapterhub.cli.main import run; run()"
    listed = json.loads(run("-c", command, "plugins", "--json", environment=installed))
    [ours] = [line for line in listed if line["plugin"] == "bitfit"]
    assert ours == {
        "plugin": "bitfit",
        "distribution": "adapterhub-bitfit",
        "version": "0.1.0",
        "module": "adapterhub_bitfit",
        "offers": ["bitfit"],
        "problem": None,
        "disabled": False,
    }


@pytest.mark.models
def test_the_example_learns_on_four_bits_and_is_read_back(
    installed: dict[str, str], tmp_path: Path
) -> None:
    environment = {**installed, "ADAPTERHUB_HOME": str(tmp_path)}
    method, learnt, matters = json.loads(
        run("-c", USE, str(tmp_path), environment=environment).splitlines()[-1]
    )
    assert (method, learnt, matters) == ("bitfit", True, True)


@pytest.mark.models
def test_the_example_passes_its_own_tests(installed: dict[str, str]) -> None:
    """The quick ones; all of them in the longer runs."""
    words = ["-m", "pytest", "-q", "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    chosen = "llama and (fresh or every_parameter or sum)"
    run_in = Path(installed["PLACE"]) / "source"
    said = run(*words, "-k", chosen, environment=installed, folder=run_in)
    assert " passed" in said


@pytest.mark.models
@pytest.mark.long
def test_the_example_passes_all_its_own_tests(installed: dict[str, str]) -> None:
    words = ["-m", "pytest", "-q", "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    said = run(*words, environment=installed, folder=Path(installed["PLACE"]) / "source")
    assert " passed" in said
    assert " failed" not in said


def test_the_table_of_skips_is_what_the_records_say() -> None:
    declared = [entry.record for entry in catalog().methods]
    assert skip_table(MethodConformance, declared) in GUIDE


def test_the_variables_and_the_mark_are_called_what_the_guide_calls_them() -> None:
    assert f"{DISABLE_VARIABLE}=all adapterhub plugins" in GUIDE
    assert f"{TRACE_VARIABLE}=1 adapterhub methods" in GUIDE
    assert "marked with `!`" in GUIDE


@pytest.mark.parametrize("name", testing.__all__)
def test_every_conformance_class_is_in_the_guide(name: str) -> None:
    assert f"| `{name}` |" in GUIDE


@pytest.mark.parametrize("capability", Capability)
def test_every_capability_is_in_the_guide(capability: Capability) -> None:
    assert f"| `{capability.name}` |" in GUIDE
