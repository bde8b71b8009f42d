"""A stranger's method beside our wheel: installed, trained, published, pulled, stacked, evaluated.

`tests/outsider/adapterhub-vera` was written from the wheel and plugins/README.md alone; nothing of
ours knows its name. It is its own distribution and lives in an environment of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from adapterhub.testing.tiny import write_tiny

pytestmark = pytest.mark.models

ROOT = Path(__file__).parents[2]
OURS = ("adapterhub", "plugins", "registry", "pyproject.toml", "README.md", "LICENSE")
PLUGIN = ROOT / "tests" / "outsider" / "adapterhub-vera"
CHECK = ("plugins", "check", "vera", "--json", "-O", "rank=8")
ROWS = [{"prompt": f"say {n}", "completion": f"it is {n}"} for n in range(16)]


class Place:
    """A fresh environment with our wheel and the stranger's, and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"

    def hub(self, *words: str) -> Any:
        """Run a command in there; its JSON."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ADAPTERHUB_", "PYTHON"))}
        done = subprocess.run(
            [self.bin / "adapterhub", *words],
            cwd=self.folder,
            env={**kept, "ADAPTERHUB_HOME": str(self.folder / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("outsider")
    for name, parts in {"ours": OURS, "theirs": (".",)}.items():
        copy_source(folder / name, ROOT if name == "ours" else PLUGIN, parts)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    made = Place(folder)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    # torch and the rest come from where the tests run; what is installed here goes before them.
    (site / "elsewhere.pth").write_text(sysconfig.get_path("purelib") + "\n")
    quiet = ("--quiet", "--no-index", "--no-deps")
    for name in ("ours", "theirs"):
        build = ("pip", "wheel", *quiet, "--no-build-isolation", "-w", str(folder / "dist"))
        subprocess.run([sys.executable, "-m", *build, folder / name], check=True)
    wheels = map(str, (folder / "dist").iterdir())
    install = ("pip", "install", *quiet, *wheels)
    subprocess.run([made.bin / "python", "-m", *install], check=True)
    return made


def copy_source(to: Path, source: Path, parts: tuple[str, ...]) -> None:
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for part in parts:
        if (source / part).is_dir():
            shutil.copytree(source / part, to / part, ignore=skipped, dirs_exist_ok=True)
        elif (source / part).exists():
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, to / part)


def test_it_is_listed_with_its_distribution(place: Place) -> None:
    [found] = [plugin for plugin in place.hub("plugins", "--json") if plugin["plugin"] == "vera"]
    assert (found["distribution"], found["problem"]) == ("adapterhub-vera", None)
    assert "vera" in {method["name"] for method in place.hub("methods", "--json")["methods"]}
    assert {plugin["distribution"] for plugin in place.hub("plugins", "--json")} == {
        "adapterhub",
        "adapterhub-vera",
    }


def test_what_it_trains_is_published_pulled_stacked_and_evaluated(place: Place) -> None:
    source = write_tiny("phi3", place.folder / "tiny-phi3")
    rows = place.folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    common = ("--base", "tiny", "--data", "rows.jsonl", "--steps", "12", "--json")
    place.hub("base", "add", "tiny", str(source))
    trained = place.hub("train", *common, "--method", "vera", "--lr", "0.02", "-o", "theirs-one")
    place.hub("train", *common, "-o", "ours-one")
    assert trained["loss"][-1] < trained["loss"][0]
    checked = place.hub("verify", "theirs-one", "--base", "tiny", "--json")
    assert (checked["ok"], checked["facts"]["tensors_match"]) == (True, "checked")
    manifest = json.loads((place.folder / "theirs-one" / "adapterhub.json").read_text())
    assert manifest["plugin"]["distribution"] == "adapterhub-vera"
    assert "plugin" not in json.loads((place.folder / "ours-one" / "adapterhub.json").read_text())
    for name in ("theirs-one", "ours-one"):
        place.hub("push", name, f"me/{name}")
        place.hub("pull", f"me/{name}")
    both = "me/theirs-one+0.5*me/ours-one"
    found = place.hub("eval", "me/theirs-one", both, "--task", "./rows.jsonl", "--json")
    assert {row["adapter"] for row in found["rows"]} == {"me/theirs-one", both}
    merged = place.hub("stack", "me/theirs-one", "me/ours-one", "-o", "merged", "--json")
    assert merged["relative_error"] < 1e-6
    said = place.hub("run", "me/theirs-one", "say 3", "--max-new-tokens", "4", "--json")
    assert said[0]["subject"] == "me/theirs-one"


@pytest.mark.parametrize(
    "place_on",
    [
        "phi3-nf4",
        *(
            pytest.param(f"{family}-{scheme}", marks=pytest.mark.long)
            for family in ("llama", "qwen2", "gpt2")
            for scheme in ("bf16", "nf4")
        ),
    ],
)
def test_it_keeps_every_promise(place: Place, place_on: str) -> None:
    place.hub(*CHECK, "--on", place_on)
