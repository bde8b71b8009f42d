"""A home that the tests of this folder share, and adapters as a run would have stored them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base

Store = Callable[..., Path]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path) -> Base:
    return add_tiny_base("llama", "bf16", home)


@pytest.fixture
def stored(tmp_path: Path, home: Path) -> Store:
    """Write a LoRA for the tiny llama, its numbers decided by `seed`."""
    from safetensors.torch import save_file

    def write(name: str, *, seed: int = 0, **options: Any) -> Path:
        base = add_tiny_base("llama", "bf16", home)
        config = method_of("lora").new_config(base.spec, {"rank": 2, **options})
        adapter = Rack(base).attach_fresh("made", "lora", config, seed=seed)
        shake(adapter, seed=seed)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_bytes(encode_config(config))
        save_file(adapter.state(), folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return write
