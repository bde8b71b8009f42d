"""What the wheel holds, and what it can do where torch was never installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.adapter_files import write_lora

ROOT = Path(__file__).parents[2]
SOURCES = ("adapterhub", "plugins", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.long


def run(*words: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | ({"ADAPTERHUB_HOME": str(home)} if home else {})
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what an earlier build left behind must not get in."""
    copy = tmp_path_factory.mktemp("source")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=skipped)
        else:
            shutil.copy(source, copy / name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", copy / "dist", copy)
    [built] = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment with the core alone."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", place)
    pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "--constraint", ROOT / "constraints.txt", wheel)
    return place / "bin"


def test_the_wheel_holds_our_packages_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert all(top.startswith("adapterhub") for top in tops), tops
    assert "adapterhub/py.typed" in names
    assert "adapterhub/plugin/template/method/method.py.tmpl" in names
    assert not [name for name in names if "test_" in name or "/tests/" in name]


def test_the_core_works_where_torch_is_absent(scripts: Path, tmp_path: Path) -> None:
    home, hub = tmp_path / "home", scripts / "adapterhub"
    folder = write_lora(tmp_path / "adapter")
    absent = "import importlib.util as u; assert not u.find_spec('torch')"
    run(scripts / "python", "-c", absent)

    verified = json.loads(run(hub, "verify", folder, "--json", home=home).stdout)
    assert "unchecked" in json.dumps(verified)
    run(hub, "push", folder, "acme/tiny-lora", home=home)
    run(hub, "pull", "acme/tiny-lora", home=home)
    for words in (["search", "tiny"], ["show", "acme/tiny-lora"], ["list"]):
        assert "acme/tiny-lora" in run(hub, *words, home=home).stdout
