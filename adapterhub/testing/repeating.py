"""Promises of a method about another process: what was made there is what would be made here.

Python's `hash` differs in each process, and with it the order of a set: neither may decide what an
adapter starts as, or what it computes from what is stored.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from adapterhub.domain.method import Capability
from adapterhub.formats.adapter_config import encode_config
from adapterhub.testing.ground import Ground, agree, apart, equal, heard
from adapterhub.testing.promises import promise
from adapterhub.testing.tiny import add_tiny_base

SEED = 5
_SERVE = "from adapterhub.testing.repeating import serve; serve()"


class Repeating(Ground):
    @promise(tensors=True)
    def test_another_process_makes_and_hears_the_same(self, home: Path, tmp_path: Path) -> None:
        """On one of its bases. A process takes seconds to start, so all classes share one."""
        import torch
        from safetensors.torch import load_file, save_file

        place = self._place()
        base = add_tiny_base(*place, home, dense=False)
        fresh = self.attach(base, "fresh", seed=SEED)
        expected = fresh.state()
        fresh.detach()
        adapter = self.attach_shaken(base, seed=SEED)
        adapter.activate()
        answers = heard(base, adapter)
        save_file(adapter.state(), tmp_path / "state.safetensors")
        (tmp_path / "config.json").write_bytes(encode_config(adapter.config))
        asked = {
            "method": self.method,
            "options": dict(self.options),
            "place": place,
            # Sums are rounded by how they are shared out, which is no business of the method.
            "threads": torch.get_num_threads(),
        }
        _another.ask(json.dumps(asked), str(home), str(tmp_path))
        made = load_file(tmp_path / "made.safetensors")
        found = load_file(tmp_path / "heard.safetensors")["heard"]
        assert made.keys() == expected.keys()
        for name, tensor in made.items():
            # What is computed rather than drawn may be rounded otherwise.
            alike = equal(tensor, expected[name]) or apart(tensor, expected[name]) < 1e-5
            assert alike, f"one seed makes another adapter in another process: {name} differs"
        agree(found, answers, within=1e-5, what="a stored adapter in another process and in this")

    def _place(self) -> tuple[str, str]:
        """The first of its bases that the method works on."""
        quantized = Capability.QUANTIZED_BASE in self.record.capabilities
        return next(place for place in self.bases if quantized or place[1] == "bf16")


def repeat(asked: str, home: str, folder: str) -> None:
    """In the other process: a fresh adapter, and what the stored one in `folder` answers."""
    import torch
    from safetensors.torch import load_file, save_file

    wanted: Mapping[str, Any] = json.loads(asked)
    torch.set_num_threads(wanted["threads"])
    ground, place = Ground(), Path(folder)
    ground.method, ground.options = wanted["method"], wanted["options"]  # type: ignore[misc]
    family, scheme = wanted["place"]
    base = add_tiny_base(family, scheme, Path(home), dense=False)
    fresh = ground.attach(base, "fresh", seed=SEED)
    save_file(fresh.state(), place / "made.safetensors")
    fresh.detach()
    state = load_file(place / "state.safetensors")
    config = json.loads((place / "config.json").read_bytes())
    adapter = ground.attach(base, state=state, config=config)
    adapter.activate()
    save_file({"heard": heard(base, adapter).contiguous()}, place / "heard.safetensors")


def serve() -> None:
    """The other process: repeat what each line asks for, and answer with the line."""
    # What libraries print goes elsewhere.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        repeat(*json.loads(line))
        answers.write(line)
        answers.flush()


class _Another:
    """A process beside this one, with another hash seed, started when it is first asked and when
    what it would be started with has changed. Whatever is raised there ends it."""

    def __init__(self) -> None:
        self._started_with: dict[str, str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def ask(self, *words: str) -> None:
        """Raises AssertionError with the last that it said where it ends instead of answering."""
        wanted = _environment()
        if wanted != self._started_with:
            self.end()
        process = self._process or self._start(wanted)
        assert process.stdin
        assert process.stdout
        line = json.dumps(words) + "\n"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
        if line not in process.stdout:  # reads on to it, past one that nobody waited for
            raise AssertionError(f"another process ends in: {self.end()}")

    def end(self) -> str:
        process, errors = self._process, self._errors
        self._process = self._errors = self._started_with = None
        if process is None or errors is None:
            return ""
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        process.wait()
        with errors:
            errors.seek(0)
            said = errors.read().strip().splitlines()
        return said[-1] if said else "nothing"

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        # Open for as long as the process is.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._started_with = environment
        atexit.register(self.end)
        return self._process


_another = _Another()


def _environment() -> dict[str, str]:
    # pytest names the running test in a variable of its own.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    # A plugin may be found by a path of this process only, as in a test of a source tree.
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PYTHONHASHSEED": other, "PYTHONPATH": paths}
