"""Losses on rows that are not trained on: taken on time, kept by, stopped by, and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.protocols import AttachedAdapter, Example
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import UsageError
from adapterhub.formats.manifest import decode_manifest
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing.practice import examples, objective
from adapterhub.testing.tiny import PAD
from adapterhub.train.curve import draw_losses
from adapterhub.train.data import collate
from adapterhub.train.loop import Outcome, Step, fit
from adapterhub.train.run import train_adapter

pytestmark = pytest.mark.models

# A rate at which the rows are learnt by heart, and others are not.
RECIPE = Recipe(
    base="tiny", data="rows", eval_data="others", eval_every=3, steps=10, batch_size=4,
    learning_rate=3e-2, schedule="constant",
)  # fmt: skip


@pytest.fixture
def adapter(base: Base) -> AttachedAdapter:
    lora = method_of("lora")
    return lora.attach(base, "one", lora.new_config(base.spec, {"rank": 4, "dropout": 0.1}))


def others(base: Base) -> list[Example]:
    said = (Message(role="user", content="2 + 3"),)
    return objective().examples([(1, Item(messages=said, answer="five"))], base.chat)


def run(base: Base, adapter: AttachedAdapter, recipe: Recipe = RECIPE, **more: Any) -> Outcome:
    more.setdefault("eval_examples", others(base))
    return fit(recipe, base, adapter, objective(), examples(base), **more)


def sha_of(adapter: AttachedAdapter) -> str:
    from safetensors.torch import save

    return sha256_hex(save(adapter.state()))


def test_the_loss_is_taken_as_often_as_asked_and_after_the_last_step(
    base: Base, adapter: AttachedAdapter
) -> None:
    seen: list[Step] = []
    outcome = run(base, adapter, on_step=seen.append)
    assert [s.number for s in outcome.steps if s.eval_loss is not None] == [3, 6, 9, 10]
    assert tuple(seen) == outcome.steps


def test_it_is_the_mean_loss_a_token_of_the_adapter_as_it_is(
    base: Base, adapter: AttachedAdapter
) -> None:
    import torch

    outcome = run(base, adapter)
    adapter.activate()
    with torch.no_grad():
        loss, count = objective().loss(base.model, collate(others(base), pad=PAD, device="cpu"))
    assert outcome.eval_loss == pytest.approx(float(loss) / count, rel=1e-5)


def test_looking_changes_nothing_of_what_is_learnt(base: Base, adapter: AttachedAdapter) -> None:
    run(base, adapter)
    watched = sha_of(adapter)
    adapter.detach()
    lora = method_of("lora")
    fresh = lora.attach(base, "one", lora.new_config(base.spec, {"rank": 4, "dropout": 0.1}))
    run(base, fresh, replace(RECIPE, eval_data=None, eval_every=0), eval_examples=())
    assert sha_of(fresh) == watched


def test_the_best_parameters_are_kept_where_asked(base: Base, adapter: AttachedAdapter) -> None:
    seen = {}

    def note(step: Step) -> None:
        seen[step.number] = sha_of(adapter)

    recipe = replace(RECIPE, eval_every=1, keep="best", steps=25)
    outcome = run(base, adapter, recipe, on_step=note)
    best = min(outcome.steps, key=lambda step: step.eval_loss or 0.0)
    assert outcome.kept == best.number < 25
    assert outcome.eval_loss == best.eval_loss
    assert sha_of(adapter) == seen[best.number]


def test_a_run_ends_when_the_loss_has_not_fallen_so_many_times(
    base: Base, adapter: AttachedAdapter
) -> None:
    outcome = run(base, adapter, replace(RECIPE, eval_every=2, steps=200, patience=3))
    losses = [s.eval_loss for s in outcome.steps if s.eval_loss is not None]
    assert outcome.stopped == "early"
    assert len(outcome.steps) < 200
    assert losses.index(min(losses)) == len(losses) - 4


def test_a_run_that_ends_early_keeps_the_last_parameters_unless_told_otherwise(
    base: Base, adapter: AttachedAdapter
) -> None:
    outcome = run(base, adapter, replace(RECIPE, eval_every=2, steps=200, patience=3))
    assert outcome.kept == len(outcome.steps)


# --- whole runs -------------------------------------------------------------------------------


def test_the_manifest_says_which_step_was_kept(base: Base, rows: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(rows.read_text().replace("blue", "a very long grey answer"))
    recipe = replace(
        RECIPE, data=str(rows), eval_data=str(held_out), steps=30, eval_every=2, keep="best",
        options={"rank": 4},
    )  # fmt: skip
    trained = train_adapter(recipe, tmp_path / "out", base=base)
    told = decode_manifest((tmp_path / "out" / "adapterhub.json").read_bytes()).recipe or {}
    outcome = trained.outcome
    assert outcome.kept < len(outcome.steps)
    assert (told["step_kept"], told["eval_loss"]) == (outcome.kept, outcome.eval_loss)
    assert (told["eval_data"], told["optimizer"]) == ("held_out.jsonl", "adamw")


def test_rows_that_are_trained_on_are_no_rows_to_evaluate_on(
    base: Base, rows: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, data=str(rows), eval_data=str(rows))
    with pytest.raises(UsageError, match="holds the rows that are trained on"):
        train_adapter(recipe, tmp_path / "out", base=base)


def test_rows_that_are_also_trained_on_are_said_and_left_out(
    base: Base, rows: Path, tmp_path: Path
) -> None:
    mixed, other = tmp_path / "mixed.jsonl", tmp_path / "other.jsonl"
    new = '{"prompt": "is this trained on?", "completion": "no"}\n'
    other.write_text(new)
    mixed.write_text(rows.read_text() + new)
    said: list[str] = []
    losses = []
    for number, file in enumerate((mixed, other)):
        recipe = replace(RECIPE, data=str(rows), eval_data=str(file), options={"rank": 4})
        trained = train_adapter(recipe, tmp_path / f"{number}", base=base, say=said.append)
        losses.append([step.eval_loss for step in trained.outcome.steps])
    assert losses[0] == losses[1]
    assert [line for line in said if "left out" in line] == [
        "4 of 5 rows of mixed.jsonl are trained on, and are left out of the evaluation"
    ]


def test_the_picture_shows_both_losses(tmp_path: Path) -> None:
    steps = [
        Step(
            number=n, loss=1 / n, gradient_norm=1.0, learning_rate=0.1, tokens=n, seconds=1.0,
            eval_loss=0.5 if n % 2 else None,
        )
        for n in range(1, 6)
    ]  # fmt: skip
    draw_losses({"one": steps}, tmp_path / "both.png")
    draw_losses({"one": [replace(s, eval_loss=None) for s in steps]}, tmp_path / "one.png")
    both, one = ((tmp_path / name).read_bytes() for name in ("both.png", "one.png"))
    assert both.startswith(b"\x89PNG")
    assert both != one
