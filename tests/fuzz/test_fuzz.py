"""No bytes make a reader crash, hang or swell: it reads them, or refuses in a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.run import tried
from tests.fuzz.shaped import SHAPED
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

FINE = ("read", "refused")


def fuzz(inputs: int, seed: int) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose memory is limited."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--inputs", str(inputs), "--seed", str(seed)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_two_thousand_hostile_inputs_are_read_or_refused() -> None:
    done = fuzz(2000, seed=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout


@pytest.mark.long
def test_twenty_thousand_hostile_inputs_are_read_or_refused() -> None:
    done = fuzz(20_000, seed=2)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SHAPED)
def test_values_of_every_kind_in_every_place_are_read_or_refused(name: str) -> None:
    check_shaped(name, 60)


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPED)
def test_many_more_values_of_every_kind_are_read_or_refused(name: str) -> None:
    check_shaped(name, 2000)


def check_shaped(name: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(SHAPED[name])
    def check(data: bytes) -> None:
        assert tried(TARGETS[name], data) in FINE, data

    check()


def test_every_target_has_shaped_values_and_good_bytes() -> None:
    assert SHAPED.keys() == TARGETS.keys()
    for target in TARGETS.values():
        assert all(tried(target, good) == "read" for good in target.good)


def _slow(_: bytes) -> None:
    end = time.process_time() + 1.1
    while time.process_time() < end:
        pass


def _broken(data: bytes) -> None:
    raise KeyError(data)


def _greedy(_: bytes) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("read", "found"), [(_slow, r"1\.\d s"), (_broken, "KeyError"), (_greedy, "more than 256 MB")]
)
def test_a_reader_that_crashes_hangs_or_swells_is_found(read: Any, found: str) -> None:
    assert re.match(found, tried(Target((b"",), read), b""))
