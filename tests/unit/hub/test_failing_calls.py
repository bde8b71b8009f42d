"""Killed, or refused by the disk, at any system call: old state or new, nothing left over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.injection import available

ROOT = Path(__file__).parents[3]
COMMANDS = (
    "sync",
    "sync a newer one",
    "pull", "pull from a hub", "pull a newer one", "pull a repair", "push", "push a newer one",
    "push, allowed",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not available(), reason="strace makes the calls fail")


def crashes(*options: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bench.crashes", "--json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def test_killed_at_some_calls() -> None:
    found = crashes("--kills", "--only", "newer", "--step", "9")
    assert found["failures"] == []
    newer = {"pull a newer one", "push a newer one", "sync a newer one"}
    assert newer == set(found["points"])
    for points in found["points"].values():
        assert {"openat KILL", "write KILL", "fsync KILL", "rename KILL"} <= set(points)


def test_refused_by_the_disk_at_some_calls() -> None:
    found = crashes("--faults", "--only", "newer", "--step", "13")
    assert found["failures"] == []
    for points in found["points"].values():
        assert {"fsync EIO", "write ENOSPC", "openat EMFILE", "openat EACCES"} <= set(points)


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_or_refused_at_every_call(command: str) -> None:
    found = crashes("--only", command)
    assert found["failures"] == []
    assert sum(found["points"][command].values()) > 100
