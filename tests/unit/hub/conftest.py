"""A home of its own for each test, an adapter to publish, and a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from tests.adapter_files import f32, lora_tensors, write_lora
from tests.hub_server import Hub, running_hub


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where adapterhub lives, with no token and no hub but an address nobody listens on."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ADAPTERHUB_HOME", str(folder))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that is this machine's default one and knows our token."""
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("ADAPTERHUB_TOKEN_HUB", server.token)
        yield server
        close_session()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "adapter")


@pytest.fixture
def big_adapter(tmp_path: Path) -> Path:
    """Four MiB of weights: many chunks, so that something can happen in between."""
    modules = tuple(f"model.layers.{index}.self_attn.q_proj" for index in range(8))
    tensors = lora_tensors(modules=modules)
    tensors = {name: f32((2, 32768) if "lora_A" in name else (32768, 2)) for name in tensors}
    return write_lora(tmp_path / "big", tensors=tensors)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
