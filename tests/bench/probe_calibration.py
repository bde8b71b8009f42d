"""What a probe's replay shows in every precision, and of every fault: where thresholds come from.

`python -m tests.bench.probe_calibration HOME` trains what HOME lacks and prints the table of
README.md. SmolLM2-135M-Instruct; each adapter's probe is taken on NF4 with activations in float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.hub.folder import AdapterFolder, read_folder
from adapterhub.models.bases import add_base, base_folder, find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.models.sample import fetch_sample
from adapterhub.runtime.attach import method_of, read_state
from adapterhub.runtime.engine import open_engine
from adapterhub.testing.tiny import temporary_home
from adapterhub.train.run import train_adapter
from adapterhub.trust.effect import effect_of, hear
from adapterhub.trust.norms import module_norms
from adapterhub.trust.probe import compare, make_probe

State = Mapping[str, Any]
RECIPES = {
    "lora": {"data": "iso-dates", "learning_rate": 2e-3, "options": {"rank": 8}},
    "lora 2": {"data": "strict-json", "learning_rate": 2e-3, "options": {"rank": 8}},
    "lora, 4 steps": {"data": "strict-json", "learning_rate": 1e-3, "steps": 4},
    "ia3": {"data": "iso-dates", "method": "ia3", "learning_rate": 2e-2},
    "prompt_tuning": {"data": "strict-json", "method": "prompt_tuning", "learning_rate": 3e-2},
}
TUNED = {"data": "strict-json", "method": "full", "learning_rate": 2e-5, "steps": 8}
SLOT = "probed"


def adapter(home: Path, base: Base, name: str, settings: Mapping[str, Any]) -> AdapterFolder:
    folder = home / "adapters" / name.replace(" ", "-").replace(",", "")
    if not folder.is_dir():
        recipe = Recipe(**{"base": base.spec.name, "steps": 24, **settings})
        train_adapter(recipe, folder, base=base)
    return read_folder(folder)


@contextmanager
def attached(base: Base, folder: AdapterFolder, config: Mapping[str, Any], state: State
             ) -> Iterator[Any]:  # fmt: skip
    """An engine with the state under the config, whatever the folder says."""
    engine = open_engine(base)
    method = method_of(folder.manifest.method)
    engine.rack.attached[SLOT] = method.attach(base, SLOT, config, state=state)
    try:
        yield hear(engine, ((SLOT, 1.0),))
    finally:
        engine.rack.detach(SLOT)


def replay(base: Base, folder: AdapterFolder, probe: Any, config: Mapping[str, Any], state: State
           ) -> str:  # fmt: skip
    with attached(base, folder, config, state) as heard:
        changed = AdapterFolder(folder.path, folder.manifest, config, None)
        found = compare(probe, heard, module_norms(changed, state))
    assert found is not None
    return f"{found.cosine:6.3f} {found.strength:6.2f} {found.norm_ratio:6.2f} " + (
        "FAULT" if found.fault else "ok   "
    )


def row(title: str, cells: list[str]) -> None:
    print(f"{title:<34}" + " | ".join(f"{cell:<27}" for cell in cells), flush=True)


# --- bases ------------------------------------------------------------------------------------


@contextmanager
def changed(base: Base, change: Callable[[str, Any], Any]) -> Iterator[Base]:
    """The base with change(name, weight) in the place of each matrix of its blocks."""
    kept = {}
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if parameter.ndim == 2 and ".layers." in name:
                kept[name] = parameter.detach().clone()
                parameter.copy_(change(name, parameter.detach()))
    yield base
    with torch.no_grad():
        for name, value in kept.items():
            base.model.get_parameter(name).copy_(value)


def noise(share: float) -> Callable[[str, Any], Any]:
    """Gaussian noise of `share` of each matrix's norm."""

    def change(name: str, weight: Any) -> Any:
        torch.manual_seed(len(name))
        random = torch.randn_like(weight)
        return weight + random * (share * weight.norm() / random.norm())

    return change


def permuted(name: str, weight: Any) -> Any:
    torch.manual_seed(len(name))
    return weight[torch.randperm(len(weight))]


def tuned(difference: State, times: float) -> Callable[[str, Any], Any]:
    def change(name: str, weight: Any) -> Any:
        found = difference.get(name)
        return weight if found is None else weight + times * found.to(weight)

    return change


# --- adapters ---------------------------------------------------------------------------------


def scaled(times: float) -> Callable[[dict[str, Any], State], Any]:
    return lambda config, state: ({**config, "lora_alpha": config["lora_alpha"] * times}, state)


def rslora(config: dict[str, Any], state: State) -> Any:
    return {**config, "use_rslora": not config.get("use_rslora")}, state


def half(config: dict[str, Any], state: State) -> Any:
    """Every second layer left out, in the file and in the config."""
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in state}
    kept = sorted(layers)[::2]
    chosen = {n: t for n, t in state.items() if int(n.split(".layers.")[1].split(".")[0]) in kept}
    return {**config, "layers_to_transform": kept}, chosen


def zeroed(config: dict[str, Any], state: State) -> Any:
    """One module's lora_B is zero, as a partial save leaves it."""
    first = next(name for name in sorted(state) if ".lora_B." in name)
    return config, {**state, first: torch.zeros_like(state[first])}


def rounded(dtype: torch.dtype) -> Callable[[dict[str, Any], State], Any]:
    return lambda config, state: (config, {n: t.to(dtype).float() for n, t in state.items()})


FAULTS = {
    "alpha x100": scaled(100), "alpha x0.1": scaled(0.1), "rsLoRA flipped": rslora,
    "every second layer cut": half, "one module zero": zeroed,
}  # fmt: skip
ROUNDINGS = {"stored in bf16": rounded(torch.bfloat16), "stored in fp16": rounded(torch.float16)}


def measure(home: Path) -> None:
    source = str(fetch_sample(say=print))
    for scheme in ("nf4", "int8", "bf16"):
        if not base_folder(f"calibrated-{scheme}").is_dir():
            add_base(f"calibrated-{scheme}", source, scheme_by_name(scheme))
    base = load_base(find_base("calibrated-nf4"), device="cpu")
    folders = {name: adapter(home, base, name, RECIPES[name]) for name in RECIPES}
    plain = load_base(find_base("calibrated-bf16"), device="cpu")
    full = read_state(adapter(home, plain, "tuned", TUNED))
    del plain
    difference = {name.removeprefix("base_model.model."): value for name, value in full.items()}
    states = {name: read_state(folder) for name, folder in folders.items()}
    probes = {}
    for name, folder in folders.items():
        with attached(base, folder, folder.config or {}, states[name]) as heard:
            norms = module_norms(folder, states[name])
            probes[name] = make_probe(base, heard, adapter="", norms=norms, tensors=1, bound=1)
            print(f"{name}: logits change by {effect_of(heard).relative:.1%}", flush=True)

    def everywhere(title: str, on: Base) -> None:
        row(title, [replay(on, folders[name], probes[name], folders[name].config or {},
                           states[name]) for name in folders])  # fmt: skip

    row("cosine, strength, worst norm", list(folders))
    everywhere("nf4, float32", base)
    for title, change in {**ROUNDINGS, **FAULTS}.items():
        cells = []
        for name, folder in folders.items():
            if title in FAULTS and not name.startswith("lora"):
                cells.append("")
                continue
            config, state = change(dict(folder.config or {}), states[name])
            cells.append(replay(base, folder, probes[name], config, state))
        row(title, cells)
    for share in (0.01, 0.05, 0.1, 0.3):
        with changed(base, noise(share)):
            everywhere(f"base + {share:.0%} noise", base)
    with changed(base, permuted):
        everywhere("base, rows permuted", base)
    for times in (1, 10, 50):
        with changed(base, tuned(difference, times)):
            everywhere(f"base tuned, difference x{times}", base)
    del base
    for scheme in ("bf16", "int8", "nf4"):
        other = load_base(find_base(f"calibrated-{scheme}"), device="cpu")
        if scheme != "nf4":
            everywhere(f"{scheme}, float32", other)
        other.model.to(torch.bfloat16)
        everywhere(f"{scheme}, bfloat16", other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    home = parser.parse_args().home.absolute()
    with temporary_home(home):
        measure(home)


if __name__ == "__main__":
    main()
