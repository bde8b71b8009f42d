"""What a probe's replay shows in every precision, and of every fault: where thresholds come from.

`python -m tests.bench.probe_calibration HOME` trains what HOME lacks and prints the table.
SmolLM2-135M-Instruct; each adapter's probe is taken on NF4 with activations in float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.probe import Probe
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
RECIPES: dict[str, dict[str, Any]] = {
    "lora": {"data": "iso-dates", "learning_rate": 2e-3, "options": {"rank": 8}},
    "ia3": {"data": "iso-dates", "method": "ia3", "learning_rate": 2e-2},
    "prompt_tuning": {"data": "iso-dates", "method": "prompt_tuning", "learning_rate": 3e-2},
    "lora-json": {"data": "strict-json", "learning_rate": 2e-3, "options": {"rank": 8}},
    "lora-weak": {"data": "strict-json", "learning_rate": 1e-3, "steps": 4},
}
TUNED: dict[str, Any] = {"data": "iso-dates", "method": "full", "learning_rate": 2e-5, "steps": 6}
SLOT = "probed"


@dataclass(frozen=True)
class Subject:
    """A trained adapter and its probe."""

    folder: AdapterFolder
    state: State
    probe: Probe


def adapter(home: Path, base: Base, name: str, settings: Mapping[str, Any]) -> AdapterFolder:
    folder = home / "adapters" / name
    if not folder.is_dir():
        recipe = Recipe(**{"base": base.spec.name, "steps": 24, "batch_size": 2, **settings})
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


def replay(
    base: Base,
    subject: Subject,
    config: Mapping[str, Any],
    state: State,
    *,
    spec: BaseSpec | None = None,
) -> str:
    """`spec` is what the base calls itself, where its weights were changed in memory."""
    folder = subject.folder
    with attached(base, folder, config, state) as heard:
        changed = AdapterFolder(folder.path, folder.manifest, config, None)
        norms = module_norms(changed, state)
        found = compare(subject.probe, heard, norms, spec=spec or base.spec)
    assert found is not None
    return f"{found.cosine:6.3f} {found.strength:6.2f} {found.norm_ratio:6.2f} " + (
        "FAULT" if found.fault else "ok"
    )


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
    subjects = {}
    for name, settings in RECIPES.items():
        subjects[name] = recorded(adapter(home, base, name, settings), base)
        faults(name, subjects[name], base)
    for title, change in bases(home):
        another = replace(base.spec, fingerprint=replace(base.spec.fingerprint, content=title))
        with changed(base, change):
            everywhere(title, subjects, base, spec=another)
    del base
    for scheme in ("bf16", "int8", "nf4"):
        other = load_base(find_base(f"calibrated-{scheme}"), device="cpu")
        everywhere(f"{scheme}, float32", subjects, other)
        other.model.to(torch.bfloat16)
        everywhere(f"{scheme}, bfloat16", subjects, other)


def recorded(folder: AdapterFolder, base: Base) -> Subject:
    state = read_state(folder)
    with attached(base, folder, folder.config or {}, state) as heard:
        norms = module_norms(folder, state)
        probe = make_probe(base, heard, adapter="", norms=norms, tensors=1, bound=1)
        relative = effect_of(heard).relative
    assert probe is not None
    print(f"{folder.path.name}: logits change by {relative:.1%}", flush=True)
    return Subject(folder, state, probe)


def faults(name: str, subject: Subject, base: Base) -> None:
    lora = subject.folder.manifest.method == "lora"
    for title, change in {**ROUNDINGS, **(FAULTS if lora else {})}.items():
        config, state = change(dict(subject.folder.config or {}), subject.state)
        print(f"{title:<30} {name:<14} {replay(base, subject, config, state)}", flush=True)


def everywhere(
    title: str, subjects: Mapping[str, Subject], base: Base, *, spec: BaseSpec | None = None
) -> None:
    for name, subject in subjects.items():
        found = replay(base, subject, subject.folder.config or {}, subject.state, spec=spec)
        print(f"{title:<30} {name:<14} {found}", flush=True)


def bases(home: Path) -> Iterator[tuple[str, Callable[[str, Any], Any]]]:
    """Bases of the same shape, from nearest to farthest."""
    plain = load_base(find_base("calibrated-bf16"), device="cpu")
    full = read_state(adapter(home, plain, "tuned", TUNED))
    del plain
    difference = {name.removeprefix("base_model.model."): value for name, value in full.items()}
    for times in (1, 10):
        yield f"base tuned, difference x{times}", tuned(difference, times)
    for share in (0.05, 0.1, 0.3):
        yield f"base + {share:.0%} noise", noise(share)
    yield "base, rows permuted", permuted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    home = parser.parse_args().home.absolute()
    with temporary_home(home):
        measure(home)


if __name__ == "__main__":
    main()
