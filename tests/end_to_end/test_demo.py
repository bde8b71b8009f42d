"""The demo's whole path on the real 4-bit base, shortened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.models, pytest.mark.weights]


def test_the_demo_trains_publishes_pulls_stacks_and_compares(tmp_path: Path) -> None:
    home = tmp_path / "home"
    script = Path(sys.executable).with_name("adapterhub")
    command = [str(script), "demo", "--json", "--home", str(home), "--steps", "8", "--items", "8"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    scores = {task["task"]: (task["before"], task["after"]) for task in found["tasks"]}
    assert scores.keys() == {"iso-dates", "strict-json"}
    for before, after in scores.values():
        assert after - before >= 0.25
    for stacked in found["stack"]:
        before, after = scores[stacked["task"]]
        assert stacked["score"] - before >= (after - before) / 4
    assert found["stack_relative_error"] < 1e-6
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert (home / "registry").is_dir()
    assert (home / "composition.toml").is_file()
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
