"""Stack two rank-16 adapters: ours and peft's `add_weighted_adapter`, against the dense sum.

One process, interleaved, medians. `error` is ||result - exact||_F / ||exact||_F in float64.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from adapterhub.compose.executor import merge
from adapterhub.compose.members import open_member, outline
from adapterhub.compose.plan import make_plan
from adapterhub.formats.adapter_config import encode_config
from adapterhub.hub.folder import read_folder
from adapterhub.plugin.catalog import catalog

WIDTH, MODULES, RANK, ROUNDS = 1024, 4, 16, 3
NAMES = ("one", "two")


class Block(nn.Module):
    """A stack of square linear layers is all that a merge sees of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"model_type": "custom"}
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(MODULES))


def peft_model() -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules=r"layers\.\d+", init_lora_weights=False
    )
    model = get_peft_model(Block(), config, adapter_name=NAMES[0])
    model.add_adapter(NAMES[1], config)
    return model


def write_folder(model: PeftModel, name: str, folder: Path) -> Path:
    """As peft saves it, but for `auto_mapping`, which names this script and would be refused."""
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "bench/block",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": r"layers\.\d+",
    }
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    state = get_peft_model_state_dict(model, adapter_name=name)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "adapter_model.safetensors")
    return folder


def exact(model: PeftModel) -> list[torch.Tensor]:
    return [
        sum(
            layer.lora_B[name].weight.double() @ layer.lora_A[name].weight.double()
            for name in NAMES
        )
        for layer in lora_layers(model)
    ]


def lora_layers(model: PeftModel) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def error(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    off = sum(float((a - b).square().sum()) for a, b in zip(found, wanted, strict=True))
    return math.sqrt(off / sum(float(b.square().sum()) for b in wanted))


def by_peft(model: PeftModel, kind: str) -> tuple[float, list[torch.Tensor]]:
    name = f"merged_{kind}"
    started = time.perf_counter()
    model.add_weighted_adapter(list(NAMES), [1.0, 1.0], name, combination_type=kind)
    seconds = time.perf_counter() - started
    deltas = [
        layer.lora_B[name].weight.double()
        @ layer.lora_A[name].weight.double()
        * layer.scaling[name]
        for layer in lora_layers(model)
    ]
    model.delete_adapter(name)
    return seconds, deltas


def by_us(folders: list[Path], strategy: str, out: Path) -> tuple[float, list[torch.Tensor]]:
    started = time.perf_counter()
    members = [open_member(str(folder), read_folder(folder)) for folder in folders]
    plan = make_plan([outline(m) for m in members], strategy=catalog().strategies[strategy])
    merge(members, plan, out, overwrite=True)
    seconds = time.perf_counter() - started
    state = load_file(out / "adapter_model.safetensors")
    prefixes = sorted({name.rpartition(".lora_")[0] for name in state})
    deltas = [
        state[f"{p}.lora_B.weight"].double() @ state[f"{p}.lora_A.weight"].double()
        for p in prefixes
    ]
    return seconds, deltas


def main() -> None:
    warnings.simplefilter("ignore")
    model = peft_model()
    wanted = exact(model)
    with tempfile.TemporaryDirectory() as work:
        folders = [write_folder(model, name, Path(work) / name) for name in NAMES]
        runs: dict[str, Callable[[], tuple[float, list[torch.Tensor]]]] = {
            "peft linear": lambda: by_peft(model, "linear"),
            "peft cat": lambda: by_peft(model, "cat"),
            "peft svd": lambda: by_peft(model, "svd"),
            "ours linear (read, merge, write)": lambda: by_us(folders, "linear", Path(work) / "l"),
            "ours svd (read, merge, write)": lambda: by_us(folders, "svd", Path(work) / "s"),
        }
        found: dict[str, list[float]] = {name: [] for name in runs}
        errors: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, work_ in runs.items():
                seconds, deltas = work_()
                found[name].append(seconds)
                errors[name] = error(deltas, wanted)
    print(f"2 adapters of rank {RANK}, {MODULES} modules of {WIDTH} x {WIDTH}, float32")
    for name, times in found.items():
        print(f"{name:<34} {statistics.median(times):8.3f} s   error {errors[name]:.2g}")


if __name__ == "__main__":
    main()
