"""Merge rank-16 adapters of all 128 modules of Phi-3-mini: ours beside peft's, each with its error.

    python -m tests.bench.composing [--device cuda] [--counts 4 8] [--peft MODULE ...]

Random float32 adapters. Ours goes from files to files in a process of its own, on one core (or on
the device). peft's `add_weighted_adapter` works in memory, on every core; it is timed on one module
of each shape, which stands for the 32 of that shape. Where fewer are named, its time for all 128 is
said as `at least`: every module counted as the quickest of those. `error` is that of one o_proj:
||merged - wanted|| / ||wanted||, where wanted is the exact sum, or what TIES makes of it entry by
entry in float64; `least` is what rank 16 allows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from adapterhub.compose.executor import merge
from adapterhub.compose.members import open_member, outline
from adapterhub.compose.plan import make_plan
from adapterhub.formats.adapter_config import encode_config
from adapterhub.hub.folder import read_folder
from adapterhub.plugin.catalog import catalog

RANK, DENSITY = 16, 0.2
SHAPES = {  # (out, in)
    "qkv_proj": (9216, 3072), "o_proj": (3072, 3072),
    "gate_up_proj": (16384, 3072), "down_proj": (3072, 8192),
}  # fmt: skip
PREFIX = "base_model.model.model.layers"
MEASURED = "o_proj"
Factors = tuple[torch.Tensor, torch.Tensor]


def random_factors(adapter: int, layer: int, kind: str) -> Factors:
    """A as a training starts from it, B as small beside it as training leaves it."""
    out, width = SHAPES[kind]
    place = list(SHAPES).index(kind)
    draw = torch.Generator().manual_seed((adapter * 1009 + layer) * 13 + place)
    A = torch.randn(RANK, width, generator=draw) / math.sqrt(3 * width)
    return A, torch.randn(out, RANK, generator=draw) / 100


def write_adapter(folder: Path, adapter: int, layers: int) -> Path:
    folder.mkdir()
    config = {
        "peft_type": "LORA", "base_model_name_or_path": "bench/phi-3-mini", "r": RANK,
        "lora_alpha": RANK, "target_modules": list(SHAPES),
    }  # fmt: skip
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    state = {}
    for layer in range(layers):
        for kind in SHAPES:
            A, B = random_factors(adapter, layer, kind)
            state[f"{PREFIX}.{layer}.{kind}.lora_A.weight"] = A
            state[f"{PREFIX}.{layer}.{kind}.lora_B.weight"] = B
    save_file(state, folder / "adapter_model.safetensors")
    return folder


# --- ours -------------------------------------------------------------------------------------


def alone(work: Path, count: int, strategy: str, layers: int, device: str) -> dict[str, Any]:
    """Run `one_merge` in a process of its own."""
    request = [str(work), str(count), strategy, str(layers), device]
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.composing", "--one", *request]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_merge(work: Path, count: int, strategy: str, layers: int, device: str) -> dict[str, Any]:
    if device == "cpu":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
    folders = [work / f"{layers}-{number}" for number in range(count)]
    record = catalog().strategies[strategy]
    options = {"density": DENSITY} if strategy == "ties" else {}
    warm(device)
    started = time.perf_counter()
    members = [open_member(str(folder), read_folder(folder)) for folder in folders]
    outlines = [outline(member) for member in members]
    plan = make_plan(outlines, strategy=record, rank=RANK, options=options)
    opened = time.perf_counter() - started
    before, peak = own_memory(), 0

    def look(_: object) -> None:
        nonlocal peak
        peak = max(peak, own_memory() - before)

    merged = merge(members, plan, work / "merged", overwrite=True, device=device, on_step=look)
    return {
        "opened": opened,
        "seconds": merged.seconds,
        "peak": peak,
        "modules": len(plan.steps),
        "bytes": sum(file.stat().st_size for d in folders for file in d.glob("*.safetensors")),
    }


def warm(device: str) -> None:
    """Libraries are loaded once a process, whoever is measured."""
    for dtype in (torch.float32, torch.float64):
        matrix = torch.randn(64, 64, dtype=dtype, device=device)
        torch.linalg.svd(matrix @ matrix.mT)
        torch.linalg.eigh((matrix @ matrix.mT).cpu())
        torch.linalg.qr(matrix)
        torch.cat([matrix, matrix]).sort()
    wait(device)


def own_memory() -> int:
    """Bytes of this process that are no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def our_delta(folder: Path, kind: str) -> torch.Tensor:
    state = load_file(folder / "adapter_model.safetensors")
    name = f"{PREFIX}.0.{kind}"
    return state[f"{name}.lora_B.weight"].double() @ state[f"{name}.lora_A.weight"].double()


# --- peft -------------------------------------------------------------------------------------


class Block(nn.Module):
    """One linear layer of each named shape is all that a merge sees of a model."""

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__()
        self.config = {"model_type": "custom"}
        for kind in kinds:
            out, width = SHAPES[kind]
            setattr(self, kind, nn.Linear(width, out, bias=False))


def by_peft(kind: str, count: int, device: str, **how: Any) -> tuple[float, torch.Tensor]:
    """Seconds for one module, and the delta that it makes."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[kind])
    model = get_peft_model(Block([kind]), config, adapter_name="0")
    for number in range(1, count):
        model.add_adapter(str(number), config)
    layer: Any = next(m for m in model.modules() if hasattr(m, "lora_A"))
    with torch.no_grad():
        for number in range(count):
            A, B = random_factors(number, 0, kind)
            layer.lora_A[str(number)].weight.copy_(A)
            layer.lora_B[str(number)].weight.copy_(B)
    model.to(device)
    names = [str(number) for number in range(count)]
    wait(device)
    started = time.perf_counter()
    model.add_weighted_adapter(names, [1.0] * count, "merged", svd_rank=RANK, **how)
    wait(device)
    seconds = time.perf_counter() - started
    A, B = layer.lora_A["merged"].weight.double(), layer.lora_B["merged"].weight.double()
    return seconds, (B @ A * layer.scaling["merged"]).detach().cpu()


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


# --- what was wanted --------------------------------------------------------------------------


def wanted(kind: str, count: int, strategy: str) -> torch.Tensor:
    """Entry by entry in float64."""
    deltas = []
    for number in range(count):
        A, B = random_factors(number, 0, kind)
        deltas.append(B.double() @ A.double())
    if strategy == "svd":
        return torch.stack(deltas).sum(0)
    for delta in deltas:
        keep = round(DENSITY * delta.numel())
        threshold = delta.abs().flatten().topk(keep).values[-1]
        delta[delta.abs() < threshold] = 0.0
    stack = torch.stack(deltas)
    agree = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
    return (stack * agree).sum(0) / agree.sum(0).clamp(min=1)


def least(exact: torch.Tensor, device: str) -> float:
    values = torch.linalg.svdvals(exact.to(device))
    return float(values[RANK:].norm() / values.norm())


def compare(count: int, strategy: str, arguments: argparse.Namespace, work: Path) -> None:
    layers = arguments.layers if strategy == "svd" else arguments.ties_layers
    device: str = arguments.device
    exact = wanted(MEASURED, count, strategy)
    size = float(exact.norm())
    print(f"\n{strategy}, {count} adapters, {device}; least error {least(exact, device):.6f}")
    runs = [alone(work, count, strategy, layers, device) for _ in range(arguments.rounds)]
    found = min(runs, key=lambda run: run["seconds"])
    scaled = found["seconds"] * 128 / found["modules"]
    error = float((our_delta(work / "merged", MEASURED) - exact).norm()) / size
    told = "" if found["modules"] == 128 else f" ({found['modules']} modules timed)"
    print(f"  ours            {scaled:10.3f} s for 128 modules{told}, error {error:.6f}; opening "
          f"{found['opened']:.2f} s; peak {found['peak'] / 1e6:.0f} MB beside "
          f"{found['bytes'] / 1e6:.0f} MB of adapters")  # fmt: skip
    ways: list[dict[str, Any]] = [{}, {"svd_full_matrices": False}]
    if device != "cpu":
        ways += [
            {"svd_full_matrices": False, "svd_driver": d} for d in ("gesvd", "gesvdj", "gesvda")
        ]
    kind = "svd" if strategy == "svd" else "ties_svd"
    density = {} if strategy == "svd" else {"density": DENSITY}
    for way in ways:
        times = {}
        settings = " ".join(f"{key}={value}" for key, value in way.items()) or "default"
        try:
            for module in arguments.peft:
                times[module], delta = by_peft(
                    module, count, device, combination_type=kind, **density, **way
                )
                if module == MEASURED:
                    error = float((delta - exact).norm()) / size
        except RuntimeError as failed:
            print(f"  peft {settings}: {str(failed).partition(': ')[2][:60]}")
            continue
        every = len(times) == len(SHAPES)
        total = 32 * sum(times.values()) if every else 128 * min(times.values())
        each = ", ".join(f"{module} {seconds:.3g} s" for module, seconds in times.items())
        bound = "" if every else "at least "
        print(f"  peft {settings}: {bound}{total:.1f} s for 128 modules ({each}), error "
              f"{error:.6f}; {total / scaled:,.0f} times ours", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--counts", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--peft", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--strategies", nargs="+", default=["svd", "ties"])
    parser.add_argument("--ties-layers", type=int, help="of 32; 1 on a CPU, all on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ties_layers is None:
        arguments.ties_layers = 1 if arguments.device == "cpu" else arguments.layers
    warnings.simplefilter("ignore")
    if arguments.one:
        work, count, strategy, layers, device = arguments.one
        print(json.dumps(one_merge(Path(work), int(count), strategy, int(layers), device)))
        return
    # Disks differ; memory is the same everywhere.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as work:
        for layers in {arguments.layers, arguments.ties_layers}:
            for number in range(max(arguments.counts)):
                write_adapter(Path(work) / f"{layers}-{number}", number, layers)
        for strategy in arguments.strategies:
            for count in arguments.counts:
                compare(count, strategy, arguments, Path(work))


if __name__ == "__main__":
    main()
