"""`train --find-lr`: a rate is found, shown, and trained with."""

from __future__ import annotations

import json
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from adapterhub.cli.rate_search import command_with
from tests.command_line import SCRIPT, CommandLine

pytestmark = pytest.mark.models
WORDS = (
    "--base", "tiny", "--data", "rows.jsonl", "--rank", "2", "--batch-size", "1", "--steps", "4",
)  # fmt: skip
TINY = """
import sys
from pathlib import Path
from adapterhub.models.bases import add_base
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.testing.tiny import write_tiny
add_base("tiny", str(write_tiny("llama", Path(sys.argv[1]), layers=1)), scheme_by_name("bf16"))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base, and a few rows to train on."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place / "tiny")], env=run.environment, check=True)
    rows = [json.dumps({"prompt": f"{n} + 1", "completion": str(n + 1)}) for n in range(6)]
    (place / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return run


def place_of(machine: CommandLine) -> Path:
    assert machine.cwd is not None
    return machine.cwd


def test_a_run_is_trained_with_the_rate_it_found(machine: CommandLine) -> None:
    told = machine.ok("train", *WORDS, "--find-lr", "--json", "-o", "out").json
    rate, trials = told["find_lr"]["rate"], told["find_lr"]["trials"]
    assert [trial["rate"] for trial in trials if trial["fate"] == "chosen"] == [rate]
    assert told["steps"] == 4
    recipe = tomllib.loads((place_of(machine) / "out" / "recipe.toml").read_text())
    assert (recipe["learning_rate"], recipe["rate_found"]) == (rate, True)
    assert json.loads((place_of(machine) / "out" / "find-lr.json").read_text())["rate"] == rate
    assert (place_of(machine) / "out" / "find-lr.png").read_bytes().startswith(b"\x89PNG")
    assert not (place_of(machine) / ".out.checkpoint").exists()


def test_a_search_alone_shows_a_table_and_the_command_to_go_on_with(machine: CommandLine) -> None:
    done = machine.ok("train", *WORDS, "--find-lr-only", "--lr", "1e-2", "-o", "alone")
    header, *rows = done.out.splitlines()[:15]
    assert header.split() == ["rate", "steps", "train", "loss", "held", "out", "fate"]
    (chosen,) = [row.split()[0] for row in rows if row.endswith("chosen")]
    assert "at most 136 steps" in done.err
    assert done.err.splitlines()[-1] == (
        f"next: adapterhub train {' '.join(WORDS)} -o alone --lr {chosen}"
    )
    left = {path.name for path in place_of(machine).glob("*alone*")}
    assert left == {"alone.find-lr.json", "alone.find-lr.png"}


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--find-lr-only", "-o", "a b"],
        ["train", "--lr", "1", "-o", "a b", "--find-lr-only"],
        ["train", "--lr=1", "--find-lr", "-o", "a b", "--find-lr-only"],
    ],
)
def test_the_command_to_go_on_with_is_the_one_that_was_given(words: list[str]) -> None:
    assert command_with(0.002, words) == "adapterhub train -o 'a b' --lr 0.002"


@pytest.mark.parametrize("kind", ["tensorboard", "trackio"])
def test_a_log_that_is_not_installed_is_missed_before_anything_costs(
    kind: str, machine: CommandLine
) -> None:
    if find_spec(kind) is not None:
        pytest.skip(f"{kind} is installed")
    done = machine("train", *WORDS, "--log", kind, "--find-lr", "-o", "logged")
    assert done.code == 8
    assert done.complaint == [
        f"--log {kind} needs packages that are not installed",
        f'pip install "adapterhub[{kind}]"',
    ]
    assert not (place_of(machine) / "logged").exists()
