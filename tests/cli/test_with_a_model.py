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
    run = CommandLine(place / "home", cwd=place)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place / "tiny")], env=run.environment, check=True)
    (place / "rows.jsonl").write_text('{"prompt": "안녕", "completion": "hello"}\n')
    return run


@pytest.fixture(scope="module")
def stopped(machine: CommandLine) -> Done:
    return train_until(machine, signal.SIGINT, "new")


def train_until(machine: CommandLine, number: signal.Signals, out: str) -> Done:
    """Training for ever on `rows.jsonl` into `out`, until this signal."""
    words = ("train", "--base", "tiny", "--data", "rows.jsonl", "-o", out, "--batch-size", "1")
    process = machine.start(
        *words, "--steps", "1000000", "--json",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=machine.cwd,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == "1 rows on tiny (nf4, cpu)\n"
    time.sleep(5)  # the first step comes late on a busy machine
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def test_a_stopped_training_keeps_what_it_had_learnt(machine: CommandLine, stopped: Done) -> None:
    assert stopped.code == 130
    assert stopped.json["stopped"] == "interrupted"
    steps = stopped.json["steps"]
    assert stopped.complaint == [
        f"interrupted after {steps} steps; new holds the adapter as of then",
        "run the same command with --overwrite to train it to the end",
    ]
    assert machine.ok("verify", "./new", "--json").json["ok"] is True


def test_a_terminated_training_keeps_what_it_had_learnt(machine: CommandLine) -> None:
    done = train_until(machine, signal.SIGTERM, "terminated")
    assert (done.code, done.json["stopped"]) == (143, "terminated")
    steps = done.json["steps"]
    assert done.complaint[0] == (
        f"terminated after {steps} steps; terminated holds the adapter as of then"
    )
    assert machine.ok("verify", "./terminated", "--json").json["ok"] is True


@pytest.mark.parametrize(
    ("option", "value", "fact"),
    [
        ("--device", "banana", "'banana' is not a device"),
        ("--seed", "9" * 20, f"{'9' * 20} is too large for a seed"),
    ],
)
def test_a_value_that_no_library_takes_is_refused(
    machine: CommandLine, stopped: Done, option: str, value: str, fact: str
) -> None:
    assert stopped.code == 130
    done = machine("run", "./new", "hello", "--max-new-tokens", "1", option, value)
    assert (done.code, done.complaint[0]) == (2, fact)


def test_a_prompt_that_is_not_utf_8_is_refused(machine: CommandLine, stopped: Done) -> None:
    assert stopped.code == 130
    done = subprocess.run(
        machine.words("run", "./new", "--max-new-tokens", "1"),
        input=b"caf\xe9\n",
        capture_output=True,
        env=machine.environment,
        cwd=machine.cwd,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert b"is not UTF-8 text" in done.stderr


def test_a_prompt_may_come_through_a_pipe(machine: CommandLine, stopped: Done) -> None:
    assert stopped.code == 130
    done = machine("run", "./new", "--max-new-tokens", "4", "--json", stdin="안녕\n")
    assert done.code == 0, done.err
    [answer] = done.json
    assert (answer["subject"], 1 <= answer["tokens"] <= 4) == ("./new", True)


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
