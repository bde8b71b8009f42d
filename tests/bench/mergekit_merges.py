"""From adapters to one adapter with mergekit's commands and with ours, each with its error.

    python -m tests.bench.mergekit_merges HOME [--work DIR] [--counts 4] [--rounds 1]

mergekit merges full models; an adapter takes part as MODEL+ADAPTER. Its way to an adapter is
`mergekit-yaml` (which first writes each adapter into a copy of the model), then
`mergekit-extract-lora`. Both run here as processes of their own on one layer of Phi-3-mini's shape
with random float32 weights and 64 tokens; ours is `merge` in a process of its own and the whole
`adapterhub stack`. Every process of either side has the same one core, so one thread. mergekit gets
an environment in HOME, which borrows all but two packages from the running one.

Figures `for 32 layers` count what lies beyond a process's start 32 times; the rest of a real model,
which mergekit reads and writes as well, is left out. `error` is that of o_proj, as in
`tests.bench.composing`, whose definitions, adapters and TIES density these are. mergekit's TIES is
the same but for three details: it trims what float32 keeps of (base + delta) - base, keeps
int(density * n) entries where we round, and takes a sum of exactly 0 for positive: together an
error of about 0.001 before any rank is cut. With equal weights, dividing by the agreeing weights
and taking the mean of the agreeing entries are one. Exits 1 unless mergekit's full model is base +
sum as far as float32 can tell, and for TIES what those details make of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Phi3Config, Phi3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from adapterhub.formats.adapter_config import encode_config
from tests.bench.composing import (
    DENSITY,
    MEASURED,
    RANK,
    SHAPES,
    alone,
    least,
    random_factors,
    wanted,
)
from tests.bench.mergekit_commands import (
    LAYERS,
    METHODS,
    Seconds,
    adapters,
    by_mergekit,
    mergekit_environment,
    timed,
)

MODULES = {
    "qkv_proj": "self_attn.qkv_proj", "o_proj": "self_attn.o_proj",
    "gate_up_proj": "mlp.gate_up_proj", "down_proj": "mlp.down_proj",
}  # fmt: skip
ROUNDOFF = 2.0**-24
# One entry that its TIES keeps or drops for another is 0.0001 or 0.0002 of the whole; a rounding
# that differs may do that to a few of the nine million, another definition does to thousands.
TIES_MARGIN = 5e-4
Weights = Mapping[str, torch.Tensor]


# --- what both are given ----------------------------------------------------------------------


def write_base(folder: Path) -> None:
    config = Phi3Config(
        vocab_size=64, hidden_size=3072, intermediate_size=8192, num_hidden_layers=1,
        num_attention_heads=32, num_key_value_heads=32, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, dtype="float32",
    )  # fmt: skip
    torch.manual_seed(0)
    disable_progress_bar()
    Phi3ForCausalLM(config).save_pretrained(folder)


def write_adapter(folder: Path, adapter: int, base: Path) -> None:
    folder.mkdir()
    config = {
        "peft_type": "LORA", "base_model_name_or_path": str(base), "r": RANK, "lora_alpha": RANK,
        "target_modules": list(SHAPES), "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    state = {}
    for kind, module in MODULES.items():
        name = f"base_model.model.model.layers.0.{module}"
        factors = random_factors(adapter, 0, kind)
        state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] = factors
    save_file(state, folder / "adapter_model.safetensors")


def full_name(kind: str) -> str:
    return f"model.layers.0.{MODULES[kind]}.weight"


def adapter_delta(folder: Path, kind: str) -> torch.Tensor:
    """What an adapter adds to one module, in float64."""
    config = json.loads((folder / "adapter_config.json").read_text())
    state = load_file(folder / "adapter_model.safetensors")
    name = f"base_model.model.model.layers.0.{MODULES[kind]}"
    A, B = (state[f"{name}.lora_{part}.weight"].double() for part in "AB")
    scaling: float = config["lora_alpha"] / config["r"]
    return B @ A * scaling


# --- what mergekit's full model should be -----------------------------------------------------


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        state |= load_file(file)
    return state


def beyond_float32(base: Weights, full: Weights, count: int) -> float:
    """How far the full model of a sum is from base + sum, as a share of what float32 allows.

    The largest entry's. Allowed is the sum of the rounding errors of each product's RANK terms, of
    base + delta, of taking the base off again, of the sum and of putting it on the base. Infinite
    where a tensor that no adapter touches has changed.
    """
    names = {full_name(kind): kind for kind in MODULES}
    others = base.keys() - names.keys()
    if base.keys() != full.keys() or not all(torch.equal(base[n], full[n]) for n in others):
        return float("inf")
    worst = 0.0
    for name, kind in names.items():
        factors = [random_factors(number, 0, kind) for number in range(count)]
        for first in range(0, SHAPES[kind][0], 1024):  # rows, so that float64 fits in memory
            rows = slice(first, first + 1024)
            before = base[name][rows].double()
            added, size = torch.zeros_like(before), torch.zeros_like(before)
            for A, B in factors:
                added += B[rows].double() @ A.double()
                size += B[rows].double().abs() @ A.double().abs()
            off = (full[name][rows].double() - before - added).abs()
            allowed = ROUNDOFF * ((count + 2) * before.abs() + (RANK + count + 3) * size)
            worst = max(worst, float((off / allowed).max()))
    return worst


def their_ties(weight: torch.Tensor, count: int) -> torch.Tensor:
    """What mergekit's TIES adds to the base's `weight` of MEASURED, in its float32."""
    deltas = []
    for number in range(count):
        A, B = random_factors(number, 0, MEASURED)
        delta = (weight + B @ A) - weight
        # On float32's grid dozens of entries are as large as the last one kept, which a threshold
        # would not tell apart; it sorts.
        order = delta.abs().flatten().argsort(descending=True)
        kept = torch.zeros(delta.numel())
        kept[order[: int(DENSITY * delta.numel())]] = 1.0
        deltas.append(delta * kept.view_as(delta))
    stack = torch.stack(deltas)
    agree = stack.sign() == torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    return (stack * agree).sum(0) / agree.sum(0).clamp(min=1)


# --- ours -------------------------------------------------------------------------------------


def by_command(work: Path, count: int, strategy: str) -> float:
    """Seconds of the whole `adapterhub stack`, which leaves its adapter in `work`/stacked."""
    options = ["--density", str(DENSITY)] if strategy == "ties" else []
    return timed(
        sys.executable, "-c", "from adapterhub.cli.main import run; run()",
        "stack", *adapters(work, count), "--strategy", strategy, "--rank", str(RANK), *options,
        "-o", work / "stacked", "--overwrite",
    )  # fmt: skip


def by_ours(work: Path, count: int, strategy: str) -> tuple[Seconds, str]:
    found = alone(work, count, strategy, 1, "cpu")
    layer, whole = found["opened"] + found["seconds"], by_command(work, count, strategy)
    said = f"merge {found['seconds']:.3f} s, opening {found['opened']:.3f} s; command {whole:.2f} s"
    return Seconds(whole=whole, layer=layer), said


def compare(commands: Path, work: Path, count: int, strategy: str, rounds: int) -> bool:
    """Print both; whether mergekit's full model is what it should be."""
    exact = wanted(MEASURED, count, strategy)

    def error(delta: torch.Tensor) -> str:
        return f"error {float((delta - exact).norm() / exact.norm()):.7f}"

    print(f"\n{strategy}, {count} adapters; least error of rank {RANK}: {least(exact, 'cpu'):.7f}")
    ours, said = min((by_ours(work, count, strategy) for _ in range(rounds)), key=quickest)
    print(f"  ours      {said}, {error(adapter_delta(work / 'stacked', MEASURED))}")
    runs = (by_mergekit(commands, work, count, strategy) for _ in range(rounds))
    theirs, said = min(runs, key=quickest)
    print(f"  mergekit  {said}, {error(adapter_delta(work / 'extracted', MEASURED))}")
    base, full = weights(work / "base"), weights(work / "full")
    weight = base[full_name(MEASURED)]
    grown = full[full_name(MEASURED)].double() - weight.double()
    print(f"            its full model minus the base: {error(grown)}")
    if strategy == "svd":
        share = beyond_float32(base, full, count)
        right = share <= 1
        print(f"            base + sum, all modules: {'within' if right else 'NOT within'} float32 "
              f"(worst entry off by {share:.2f} of what its roundings allow)")  # fmt: skip
    else:
        own = their_ties(weight, count).double()
        off = float((grown - own).norm() / own.norm())
        right = off <= TIES_MARGIN
        print(f"            beside its own definition on that base, in float32: error {off:.7f}"
              f"{'' if right else ', too much'}")  # fmt: skip
    print(f"  commands, one layer: ours {ours.whole:.2f} s, mergekit {theirs.whole:.1f} s, "
          f"{theirs.whole / ours.whole:.1f} times ours")  # fmt: skip
    print(f"  for {LAYERS} layers:       ours {ours.scaled:.1f} s, mergekit {theirs.scaled:.0f} s, "
          f"{theirs.scaled / ours.scaled:,.0f} times ours", flush=True)  # fmt: skip
    return right


def quickest(run: tuple[Seconds, str]) -> float:
    return run[0].whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("home", type=Path, help="keeps mergekit's environment")
    parser.add_argument("--work", type=Path, help="for models; default: one in memory, removed")
    parser.add_argument("--counts", type=int, nargs="+", default=[4])
    parser.add_argument("--strategies", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=1, help="the quickest counts")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    commands = mergekit_environment(asked.home.absolute())
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    if asked.work:
        asked.work.mkdir(parents=True, exist_ok=True)
    # Every process started from here on inherits it, and takes its number of threads from it.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    print("every process on the same one core, one thread")
    with tempfile.TemporaryDirectory(dir=asked.work or memory) as made:
        work = Path(made).absolute()
        os.environ["ADAPTERHUB_HOME"] = str(work / "home")
        write_base(work / "base")
        for number, folder in enumerate(adapters(work, max(asked.counts))):
            write_adapter(folder, number, work / "base")
        right = [
            compare(commands, work, count, strategy, asked.rounds)
            for strategy in asked.strategies
            for count in asked.counts
        ]
    if not all(right):
        sys.exit("mergekit's full model is not what it should be: its times are of something else")


if __name__ == "__main__":
    main()
