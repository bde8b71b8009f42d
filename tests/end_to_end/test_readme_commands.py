"""The README's commands, run in order as they stand, on the real 4-bit base.

Only the amounts are smaller, and what a reader must bring (somebody's adapters, a task file) is
put in place first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapterhub.models.sample import fetch_sample, samples_dir
from tests.readme_files import write_readme_files

pytestmark = [pytest.mark.models, pytest.mark.weights]

README = Path(__file__).parents[2] / "README.md"
BIN = Path(sys.executable).parent
SMALLER = {
    "--steps 24": "--steps 2",
    "--limit 20": "--limit 2",
    "adapterhub run": "adapterhub run --max-new-tokens 8",
}
NOT_HERE = ("make ", "pip install")  # the Makefile runs this test; wheels have a test of their own
TOUR = "## From nothing to your own published adapter"


def commands(text: str) -> list[str]:
    """Every `$ ` line of the console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line[2:].partition("   #")[0] for line in lines]


def smaller(line: str) -> str:
    for literal, less in SMALLER.items():
        line = line.replace(literal, less)
    return line


def run(line: str, cwd: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A stranger's machine: an empty home, but for the weights that the demo fetched."""
    sample = fetch_sample(say=print)
    cache = tmp_path / "user" / ".cache" / samples_dir().name
    cache.mkdir(parents=True)
    shutil.copyfile(sample, cache / sample.name)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ADAPTERHUB_", "XDG_", "HF_"))}
    return {**kept, "HOME": str(tmp_path / "user"), "PATH": f"{BIN}:{os.environ['PATH']}"}


def test_every_command_of_the_readme_works(tmp_path: Path, environment: dict[str, str]) -> None:
    opening, _, tour = README.read_text().partition(TOUR)
    write_readme_files(tmp_path)
    for line in commands(tour):
        run(smaller(line), tmp_path, environment)
    bring_what_the_opening_needs(tmp_path, environment)
    for line in commands(opening):
        if not line.startswith(NOT_HERE):
            run(smaller(line), tmp_path, environment)


def bring_what_the_opening_needs(cwd: Path, environment: dict[str, str]) -> None:
    item = {"prompt": "Acephala have no head.", "completion": "무두류는 머리가 없다."}
    (cwd / "en2ko.jsonl").write_text(json.dumps(item, ensure_ascii=False) + "\n")
    run("adapterhub push my-dates user/en2ko-lora", cwd, environment)
    run("adapterhub push my-json acme/formal", cwd, environment)
