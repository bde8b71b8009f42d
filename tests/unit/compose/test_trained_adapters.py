"""Adapters that were trained, with ranks and targets of their own, merged by every strategy that
has a definition without chance: from files to files, against that definition in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.recipe import Recipe
from adapterhub.hub.folder import read_folder
from adapterhub.plugin.catalog import catalog
from adapterhub.testing.tiny import add_tiny_base, temporary_home

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from adapterhub.compose.executor import merge  # noqa: E402
from adapterhub.compose.members import Member, open_member, outline  # noqa: E402
from adapterhub.compose.plan import make_plan  # noqa: E402
from adapterhub.train.run import train_adapter  # noqa: E402

pytestmark = pytest.mark.models

RANK, WEIGHTS = 5, (1.0, 0.6)
SETTINGS: Sequence[Mapping[str, Any]] = (
    {"rank": 8, "targets": "all-linear"},
    {"rank": 3, "alpha": 12, "targets": "q_proj,v_proj,down_proj"},
)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Member]:
    home = tmp_path_factory.mktemp("home")
    base = add_tiny_base("llama", "nf4", home)
    found = []
    with temporary_home(home):
        for seed, (options, weight) in enumerate(zip(SETTINGS, WEIGHTS, strict=True)):
            rows = home / f"rows-{seed}.jsonl"
            rows.write_text(
                "".join(
                    json.dumps({"prompt": f"say {n}", "completion": f"{n + seed} it is"}) + "\n"
                    for n in range(16)
                )
            )
            recipe = Recipe(
                base=base.spec.name, data=str(rows), steps=4, batch_size=4, learning_rate=1e-2,
                seed=seed, options=dict(options),
            )  # fmt: skip
            folder = train_adapter(recipe, home / f"adapter-{seed}", base=base).folder
            found.append(open_member(str(folder), read_folder(folder), weight=weight))
    return found


def deltas_of(folder: Path, scaling: float) -> dict[str, Any]:
    """Module -> scaling * B A, in float64."""
    state = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, A in state.items():
        if ".lora_A." in name:
            B = state[name.replace("lora_A", "lora_B")]
            module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
            found[module] = scaling * B.double() @ A.double()
    return found


def largest(delta: Any, count: int, skipped: int = 0) -> Any:
    order = delta.abs().flatten().argsort(descending=True)[skipped : skipped + count]
    kept = torch.zeros(delta.numel(), dtype=torch.float64)
    kept[order] = delta.flatten()[order]
    return kept.view_as(delta)


def added(deltas: Sequence[Any]) -> Any:
    return torch.stack(list(deltas)).sum(0)


def elected(deltas: Sequence[Any]) -> Any:
    stacked = torch.stack(list(deltas))
    agree = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


DEFINITIONS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "linear": added,
    "svd": added,
    "ties": lambda found: elected([largest(d, round(0.2 * d.numel())) for d in found]),
    "magnitude_prune": lambda found: added([largest(d, round(0.2 * d.numel())) for d in found]),
    "breadcrumbs": lambda found: added(
        [largest(d, round(0.9 * d.numel()), round(0.01 * d.numel())) for d in found]
    ),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_trained_adapters_are_merged_as_defined(
    name: str, members: Sequence[Member], tmp_path: Path
) -> None:
    strategy = catalog().strategies[name]
    rank = None if strategy.exact else RANK
    plan = make_plan([outline(m) for m in members], strategy=strategy, rank=rank)
    folder = merge(members, plan, tmp_path / name).folder
    merged = deltas_of(folder, 1.0)
    parts = []
    for member in members:
        config = member.folder.config or {}
        scaling = member.weight * config["lora_alpha"] / config["r"]
        parts.append(deltas_of(member.folder.path, scaling))
    assert len(parts[0]) > len(parts[1])
    assert merged.keys() == parts[0].keys() | parts[1].keys()
    for module, found in merged.items():
        wanted = DEFINITIONS[name]([part[module] for part in parts if module in part])
        size = float(wanted.norm())
        least = 0.0 if rank is None else float(torch.linalg.svdvals(wanted)[rank:].norm()) / size
        error = float((found - wanted).norm()) / size
        assert error <= least * (1 + 1e-6 if name == "svd" else 1.01) + 1e-6, module
