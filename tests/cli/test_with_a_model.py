"""Commands that load a base: a prompt from a pipe, a run that was stopped, a disk that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command_line import SCRIPT, CommandLine, Done

pytestmark = pytest.mark.models
WORDS = ("--base", "tiny", "--data", "rows.jsonl", "--batch-size", "1")
TINY = """
import sys
from pathlib import Path
from adapterhub.models.bases import add_base
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.testing.tiny import write_tiny
add_base("tiny", str(write_tiny("llama", Path(sys.argv[1]))), scheme_by_name("nf4"))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base in 4 bits, and a row to train on."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place / "tiny")], env=run.environment, check=True)
    (place / "rows.jsonl").write_text('{"prompt": "안녕", "completion": "hello"}\n')
    (place / "held_out.jsonl").write_text('{"prompt": "안녕", "completion": "hallo"}\n')
    return run


@pytest.fixture(scope="module")
def trained(machine: CommandLine) -> Done:
    """A few steps, written to `trained`."""
    return machine("train", *WORDS, "-o", "trained", "--steps", "2", "--json")


def train_until(machine: CommandLine, number: signal.Signals, out: str) -> Done:
    """Training for ever on `rows.jsonl` into `out`, until a checkpoint is written; this signal."""
    assert machine.cwd is not None
    checkpoint = machine.cwd / f".{out}.checkpoint" / "checkpoint.json"
    before = checkpoint.read_bytes() if checkpoint.is_file() else b""
    process = machine.start(
        "train", *WORDS, "-o", out, "--steps", "1000000", "--json", "--checkpoint-every", "1",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=machine.cwd,
    )  # fmt: skip
    for _ in range(6000):
        if checkpoint.is_file() and checkpoint.read_bytes() != before:
            break
        time.sleep(0.01)
    process.send_signal(number)
    printed, err = process.communicate(timeout=60)
    return Done(process.returncode, printed, err)


def test_a_stopped_training_keeps_a_checkpoint_and_writes_no_adapter(machine: CommandLine) -> None:
    done = train_until(machine, signal.SIGINT, "new")
    assert (done.code, done.out) == (130, "")
    assert done.complaint[0].startswith("interrupted after ")
    assert done.complaint[0].endswith("/.new.checkpoint keeps")
    assert done.complaint[1] == (
        "run the same command again to go on from there, or with --restart to begin anew"
    )
    assert machine.cwd is not None
    assert not (machine.cwd / "new").exists()


def test_the_same_command_goes_on_and_another_is_refused(machine: CommandLine) -> None:
    done = train_until(machine, signal.SIGTERM, "again")
    assert (done.code, done.complaint[0].split()[0]) == (143, "terminated")
    assert "resuming at step " in train_until(machine, signal.SIGTERM, "again").err
    other = machine("train", *WORDS, "-o", "again", "--steps", "2")
    assert (other.code, "differs in steps" in other.complaint[0]) == (2, True)
    machine.ok("train", *WORDS, "-o", "again", "--steps", "2", "--restart")
    assert machine.ok("verify", "./again", "--json").json["ok"] is True
    assert machine.cwd is not None
    assert not list(machine.cwd.glob(".again.*"))


def test_training_says_what_it_did(trained: Done) -> None:
    assert trained.code == 0, trained.err
    assert trained.err.splitlines()[0] == "1 rows on tiny (nf4, cpu)"
    told = trained.json
    assert (told["steps"], told["stopped"], told["kept"]) == (2, "finished", 2)
    assert (told["optimizer"], told["accumulate"], told["resumed"]) == ("adamw", 1, 0)


def test_training_with_evaluation_shows_both_losses(machine: CommandLine) -> None:
    done = machine.ok(
        "train", *WORDS, "-o", "evaluated", "--steps", "4", "--eval-data", "held_out.jsonl",
        "--keep", "best", "--optimizer", "adamw8bit", "-O", "rank=2", "--dropout", "0.1",
    )  # fmt: skip
    assert "adamw8bit needs CUDA; torch's AdamW is used instead" in done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["evaluated", "loss", "held"]
    assert "kept: step" in lines[2]


@pytest.mark.parametrize(
    ("option", "value", "fact"),
    [
        ("--device", "banana", "'banana' is not a device"),
        ("--seed", "9" * 20, f"{'9' * 20} is too large for a seed"),
    ],
)
def test_a_value_that_no_library_takes_is_refused(
    machine: CommandLine, trained: Done, option: str, value: str, fact: str
) -> None:
    assert trained.code == 0
    done = machine("run", "./trained", "hello", "--max-new-tokens", "1", option, value)
    assert (done.code, done.complaint[0]) == (2, fact)


def test_a_prompt_that_is_not_utf_8_is_refused(machine: CommandLine, trained: Done) -> None:
    assert trained.code == 0
    done = subprocess.run(
        machine.words("run", "./trained", "--max-new-tokens", "1"),
        input=b"caf\xe9\n",
        capture_output=True,
        env=machine.environment,
        cwd=machine.cwd,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert b"is not UTF-8 text" in done.stderr


def test_a_prompt_may_come_through_a_pipe(machine: CommandLine, trained: Done) -> None:
    assert trained.code == 0
    done = machine("run", "./trained", "--max-new-tokens", "4", "--json", stdin="안녕\n")
    assert done.code == 0, done.err
    [answer] = done.json
    assert (answer["subject"], 1 <= answer["tokens"] <= 4) == ("./trained", True)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_a_training_and_leaves_no_half_folder(
    machine: CommandLine, tmp_path: Path
) -> None:
    line = (
        f'mount -t tmpfs -o size=16k none "{tmp_path}" && cd "{machine.cwd}" && '
        f'"{SCRIPT}" train --base tiny --data rows.jsonl -o "{tmp_path}/new" --steps 1 '
        f'--batch-size 1; echo code=$?; ls -A "{tmp_path}"'
    )
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", line],
        env=machine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip(f"this machine lets nobody mount a small disk: {done.stderr.strip()}")
    assert done.stdout == "code=9\n"
    errors = done.stderr.splitlines()[-2:]
    assert errors[0].endswith(": the disk is full")
    assert errors[1].startswith("hint:  free some space")
