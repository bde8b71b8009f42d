"""What is said of a machine's libraries and processor."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from adapterhub.models.machine import model_checks, processor

pytestmark = pytest.mark.models


def cpuinfo(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs\t\t:\n")
    return path


def test_a_processor_that_repacks_4_bit_weights_is_told(tmp_path: Path) -> None:
    trap = processor(cpuinfo(tmp_path, "fpu avx2 avx512f avx512_bf16"))
    assert trap.state == "note"
    assert "gradients wrong" in trap.found
    assert processor(cpuinfo(tmp_path, "fpu avx2")).state == "ok"
    assert processor(tmp_path / "none").state == "note"


def test_a_library_older_than_is_asked_for_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "peft" else real(name))
    [peft] = [check for check in model_checks() if check.name == "peft"]
    assert (peft.state, peft.found.split(",")[0]) == ("broken", "0.1")
    assert peft.hint is not None
    assert peft.hint.startswith('pip install "peft>=')


def test_a_library_that_does_not_work_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes.functional as bnb

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(bnb, "quantize_4bit", fails)
    [found] = [check for check in model_checks() if check.name == "4 bits"]
    assert found.state == "broken"
    assert found.found.endswith("no kernel image is available")
