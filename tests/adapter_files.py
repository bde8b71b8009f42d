"""Write adapters with the standard library alone, well formed or planted with a fault.

Knows the safetensors format and peft's names; no test logic.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
PREFIX = "base_model.model."
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "acme/tiny",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}

Tensor = tuple[str, tuple[int, ...], bytes]


def f32(shape: tuple[int, ...], value: float = 0.5) -> Tensor:
    return "F32", shape, struct.pack("<f", value) * math.prod(shape)


def safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    return with_header(json.dumps(header).encode(), b"".join(t[2] for t in tensors.values()))


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def lora_tensors(rank: int = 2, modules: tuple[str, ...] = MODULES) -> dict[str, Tensor]:
    """A (rank, 8) and B (8, rank) for each module."""
    tensors = {}
    for module in modules:
        tensors[f"{PREFIX}{module}.lora_A.weight"] = f32((rank, 8))
        tensors[f"{PREFIX}{module}.lora_B.weight"] = f32((8, rank))
    return tensors


def write_lora(
    folder: Path,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    config: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A LoRA's folder; `changes` replace single keys of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = dict(CONFIG if config is None else config) | changes
    (folder / "adapter_config.json").write_text(json.dumps(stored))
    weights = safetensors(lora_tensors() if tensors is None else tensors)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder
