"""Stored LoRAs made in code, as folders that plain peft would load."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Shapes = Mapping[str, tuple[int, int]]

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"
SHAPES: Shapes = {Q: (24, 16), DOWN: (16, 32)}


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Any]:
    """Write a LoRA with random factors and open it as a member."""
    import torch
    from safetensors.torch import save_file

    from adapterhub.compose.members import open_member
    from adapterhub.hub.folder import read_folder

    def write(
        ref: str,
        *,
        seed: int = 0,
        rank: int = 4,
        shapes: Shapes = SHAPES,
        weight: float = 1.0,
        dtype: str = "float32",
        base: str = "acme/tiny",
        extra: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Any] | None = None,
    ) -> Any:
        folder = tmp_path / ref
        folder.mkdir(parents=True)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": 2 * rank,
            "target_modules": sorted(shapes),
            **(extra or {}),
        }
        make = torch.Generator().manual_seed(seed)
        state = dict(tensors or {})
        for module, (rows, columns) in shapes.items():
            own = config.get("rank_pattern", {}).get(module, rank)
            for part, shape in (("A", (own, columns)), ("B", (rows, own))):
                values = torch.randn(*shape, generator=make) / 8
                name = f"base_model.model.{module}.lora_{part}.weight"
                state.setdefault(name, values.to(getattr(torch, dtype)))
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return open_member(ref, read_folder(folder), weight=weight, commit=None)

    return write
