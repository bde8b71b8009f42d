"""Every trained method takes real steps on a Phi-3 shaped base; prints what each costs.

All but `full` on NF4. A row is about 500 tokens and a step four rows, without recomputation.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from adapterhub.domain.method import Capability
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.hub.folder import read_folder
from adapterhub.models.bases import add_base
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.engine import open_engine
from adapterhub.train.run import Trained, train_adapter
from adapterhub.trust.effect import NOTHING, measure_effect
from tests.gpu.conftest import write_phi3

STEPS = 6
RATES = {"full": 1e-5, "ia3": 1e-2, "ln_tuning": 1e-3, "prompt_tuning": 1e-2}
# A third of Phi-3-mini's layers: the difference, its gradient and AdamW's two moments are float32.
FULL_LAYERS = 8
TRAINED = sorted(
    entry.record.name
    for entry in catalog().methods
    if Capability.TRAIN in entry.record.capabilities
)
ON_NF4 = [
    name for name in TRAINED if Capability.QUANTIZED_BASE in catalog().methods[name].capabilities
]


@pytest.fixture(scope="module")
def data(home: Path) -> Path:
    path = home / "long-rows.jsonl"
    rows = [
        {"prompt": f"repeat {n} " + f"word{n} " * 30, "completion": f"word{n} " * 35}
        for n in range(32)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trained(method: str, base: Base, data: Path, place: Path, **more: Any) -> Trained:
    recipe = Recipe(
        base=base.spec.name,
        data=str(data),
        steps=STEPS,
        batch_size=4,
        learning_rate=RATES.get(method, 1e-3),
        seed=1,
    )
    preset = {k: v for k, v in catalog().methods[method].preset.items() if k != "learning_rate"}
    recipe = replace(recipe, method=method, **{**preset, **more})
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run = train_adapter(recipe, place / method, base=base, overwrite=True)
    first, last = run.outcome.steps[0], run.outcome.steps[-1]
    # The first step pays for kernels and buffers.
    speed = (last.tokens - first.tokens) / (last.seconds - first.seconds)
    print(
        f"| `{method}` | {run.parameters:,} | {speed:,.0f} | "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} | "
        f"{first.loss:.3f} -> {last.loss:.3f} |"
    )
    return run


def changes(run: Trained, base: Base) -> float:
    engine = open_engine(base)
    engine.rack.attach("trained", read_folder(run.folder))
    effect = measure_effect(engine, (("trained", 1.0),))
    engine.rack.detach("trained")
    assert effect.finite
    return effect.relative


@pytest.fixture(scope="module", autouse=True)
def warmed(base: Base, data: Path, home: Path) -> None:
    """Whoever comes first would pay for loading kernels."""
    print("\n| warming up: method | trained | tokens/s | peak GiB | loss |\n|---|---|---|---|---|")
    trained("lora", base, data, home)


@pytest.mark.parametrize("method", ON_NF4)
def test_it_learns_on_nf4_and_is_read_back(
    method: str, base: Base, data: Path, tmp_path: Path
) -> None:
    run = trained(method, base, data, tmp_path)
    assert run.outcome.stopped == "finished"
    assert run.outcome.steps[-1].loss < run.outcome.steps[0].loss
    assert changes(run, base) > NOTHING


def test_what_does_not_work_on_nf4_learns_on_bf16(home: Path, data: Path, tmp_path: Path) -> None:
    rest = sorted(set(TRAINED) - set(ON_NF4))
    source = write_phi3(home / "phi3-shape-small", layers=FULL_LAYERS)
    base = load_base(add_base("phi3-bf16", str(source), scheme_by_name("bf16")))
    for method in rest:
        run = trained(method, base, data, tmp_path)
        assert run.outcome.steps[-1].loss < run.outcome.steps[0].loss
        assert changes(run, base) > NOTHING
