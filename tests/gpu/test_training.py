"""What the training loop does on CUDA only: 8-bit optimizers, bf16, memory, going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs CUDA", allow_module_level=True)

from adapterhub.domain.recipe import PRECISIONS, Recipe
from adapterhub.errors import InterruptedRunError
from adapterhub.models.bases import find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.loop import Step
from adapterhub.train.run import Trained, train_adapter

ROWS = "".join(
    f'{{"prompt": "{number} + 1", "completion": "{number + 1}"}}\n' for number in range(40)
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    add_tiny_base("llama", "nf4", home)
    return load_base(find_base("tiny-llama-nf4"), device="cuda")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS)
    # 8-bit states are kept of tensors of 4096 numbers and more.
    options = {"rank": 64, "dropout": 0.1}
    return Recipe(
        base="tiny-llama-nf4", data=str(rows), steps=40, learning_rate=3e-3, options=options
    )


def losses(trained: Trained) -> list[float]:
    return [step.loss for step in trained.outcome.steps]


@pytest.mark.parametrize("kind", ["adamw8bit", "paged_adamw8bit"])
def test_an_8_bit_optimizer_is_used_and_learns(
    kind: Any, recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    plain = train_adapter(recipe, tmp_path / "plain", base=base)
    trained = train_adapter(replace(recipe, optimizer=kind), tmp_path / "out", base=base)
    assert (plain.outcome.optimizer, trained.outcome.optimizer) == ("adamw", kind)
    assert losses(trained) != losses(plain)
    assert losses(trained)[-1] < 0.7 * losses(trained)[0]


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "paged_adamw8bit"])
def test_a_stopped_run_goes_on_where_it_was(
    kind: Any, recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    recipe = replace(recipe, optimizer=kind)
    calm = train_adapter(recipe, tmp_path / "calm", base=base)

    def stop(step: Step) -> None:
        if step.number == 20:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        train_adapter(recipe, tmp_path / "out", base=base, on_step=stop)
    trained = train_adapter(recipe, tmp_path / "out", base=base)
    assert trained.outcome.resumed == 20
    assert losses(trained) == pytest.approx(losses(calm), rel=0.02)


@pytest.mark.parametrize("changes", [{"checkpointing": True}, {"batching": "packed"}])
def test_another_way_to_compute_gives_the_same_run(
    changes: dict[str, Any], recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    recipe = replace(recipe, options={"rank": 64}, steps=8)
    plain = train_adapter(recipe, tmp_path / "plain", base=base)
    other = train_adapter(replace(recipe, **changes), tmp_path / "out", base=base)
    assert losses(other) == pytest.approx(losses(plain), rel=0.02)


def test_float32_and_bf16_are_two_computations(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    runs = [
        train_adapter(replace(recipe, precision=p, steps=4), tmp_path / str(n), base=base)
        for n, p in enumerate(PRECISIONS)
    ]
    auto, float32, bf16 = (losses(made) for made in runs)
    assert auto == bf16
    assert float32 == pytest.approx(bf16, rel=0.05)
