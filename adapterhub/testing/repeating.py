"""Promises of a method about another process: what was made there is what would be made here.

Python's `hash` differs in each process, and with it the order of a set: neither may decide what an
adapter starts as, or what it computes from what is stored.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterhub.domain.method import Capability
from adapterhub.formats.adapter_config import encode_config
from adapterhub.testing.ground import Ground, agree, apart, equal, heard
from adapterhub.testing.promises import promise
from adapterhub.testing.tiny import add_tiny_base

SEED = 5
_RUN = "import sys; from adapterhub.testing.repeating import repeat; repeat(*sys.argv[1:])"


class Repeating(Ground):
    @promise(tensors=True)
    def test_another_process_makes_and_hears_the_same(self, home: Path, tmp_path: Path) -> None:
        """On one of its bases, since a process takes seconds to start."""
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
        _in_another_process(json.dumps(asked), str(home), str(tmp_path))
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


def _in_another_process(*words: str) -> None:
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    # A plugin may be found by a path of this process only, as in a test of a source tree.
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *words],
        env={**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.strip().splitlines()
    assert done.returncode == 0, f"another process ends in: {said[-1] if said else 'nothing'}"
