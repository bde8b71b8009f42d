"""peft's merges of stored LoRA adapters, written as adapter folders that any engine attaches.

Its arithmetic touches the adapters alone, so that no base is loaded.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from adapterhub.formats.adapter_config import encode_config
from adapterhub.plugin.catalog import catalog, load_target

RANK = 16
# peft's name for a merge, and ours; its `linear` mixes one adapter's A with another's B.
PEERS = {
    "linear": "linear", "cat": "linear", "svd": "svd", "ties_svd": "ties",
    "dare_linear_svd": "dare_linear", "dare_ties_svd": "dare_ties",
    "magnitude_prune_svd": "magnitude_prune",
}  # fmt: skip


def density(strategy: str) -> float | None:
    """Our default, None for a strategy that keeps every entry."""
    parameters = inspect.signature(load_target(catalog().strategies[strategy].target)).parameters
    return float(parameters["density"].default) if "density" in parameters else None


def stand_in(shapes: Mapping[str, tuple[int, int]]) -> nn.Module:
    """A model of linear layers (out, in) under these names, which is all that a merge sees of one;
    a weight is one number in memory."""
    root = nn.Module()
    root.config = {"model_type": "custom"}  # type: ignore[assignment]
    for name, (out, width) in shapes.items():
        *path, last = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        layer = nn.Linear(1, 1, bias=False)
        layer.in_features, layer.out_features = width, out
        layer.weight = nn.Parameter(torch.zeros(()).expand(out, width), requires_grad=False)
        parent.add_module(last, layer)
    return root


def peft_merge(folders: Sequence[Path], kind: str, out: Path, keep: float | None) -> Path:
    """Write peft's merge as an adapter's folder; in a process of its own, on one thread."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    before, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
    modules = [name.removesuffix(A) for name in states[0] if name.endswith(A)]
    shapes = {
        name.removeprefix(before): (len(states[0][name + B]), states[0][name + A].shape[1])
        for name in modules
    }
    stored = json.loads((folders[0] / "adapter_config.json").read_bytes())
    config = LoraConfig(
        r=stored["r"], lora_alpha=stored["lora_alpha"], use_rslora=stored.get("use_rslora", False),
        target_modules=list(shapes),
    )  # fmt: skip
    names = [f"member{number}" for number in range(len(folders))]
    model = get_peft_model(stand_in(shapes), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    layers: dict[str, Any] = {m: model.base_model.model.get_submodule(m) for m in shapes}
    with torch.no_grad():
        for name, state in zip(names, states, strict=True):
            for module, layer in layers.items():
                layer.lora_A[name].weight.copy_(state[before + module + A])
                layer.lora_B[name].weight.copy_(state[before + module + B])
    settings: dict[str, Any] = {} if keep is None else {"density": keep}
    model.add_weighted_adapter(
        names, [1.0] * len(names), "merged", combination_type=kind, svd_rank=RANK,
        svd_full_matrices=False, **settings,
    )  # fmt: skip
    rank = model.peft_config["merged"].r
    out.mkdir(parents=True, exist_ok=True)
    described = {**stored, "r": rank, "lora_alpha": model.peft_config["merged"].lora_alpha}
    (out / "adapter_config.json").write_bytes(encode_config(described))
    merged = {}
    for module, layer in layers.items():
        merged[before + module + A] = layer.lora_A["merged"].weight.detach().contiguous()
        merged[before + module + B] = layer.lora_B["merged"].weight.detach().contiguous()
    save_file(merged, out / "adapter_model.safetensors")
    return out
