"""A recipe holds only numbers that a run can have, and says the rate of every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapterhub.domain.recipe import Recipe, learning_rate_at
from adapterhub.errors import UsageError
from adapterhub.formats.recipe_file import decode_recipe, encode_recipe

RECIPE = Recipe(base="tiny", data="rows.jsonl", steps=100, learning_rate=1e-3, warmup=0.1)


def rates(**changes: Any) -> list[float]:
    recipe = replace(RECIPE, **changes)
    return [learning_rate_at(recipe, step) for step in range(recipe.steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_evenly_to_its_peak(schedule: str) -> None:
    made = rates(schedule=schedule)
    assert made[:10] == pytest.approx([1e-4 * step for step in range(1, 11)])
    assert max(made) == pytest.approx(1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_falls_to_a_tenth(schedule: str) -> None:
    made = rates(schedule=schedule)[10:]
    assert made == sorted(made, reverse=True)
    assert made[-1] == pytest.approx(1e-4, rel=0.11)
    assert min(made) > 1e-4


def test_halfway_down_the_cosine_is_half_of_the_way() -> None:
    assert learning_rate_at(RECIPE, 55) == pytest.approx(0.55e-3)


def test_a_constant_rate_stays() -> None:
    assert rates(schedule="constant")[10:] == pytest.approx([1e-3] * 90)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_a_rate(steps: int) -> None:
    assert all(0 < rate <= 1e-3 for rate in rates(steps=steps))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"accumulate": 0},
        {"batch_size": 8, "accumulate": 3},
        {"learning_rate": 0.0},
        {"learning_rate": -1e-3},
        {"learning_rate": 2.0},
        {"learning_rate": float("nan")},
        {"schedule": "triangle"},
        {"warmup": -0.1},
        {"warmup": 1.5},
        {"clip": 0.0},
        {"clip": float("nan")},
        {"weight_decay": -0.1},
        {"weight_decay": float("inf")},
        {"max_length": 1},
        {"lr_ratio": 0.0},
        {"lr_ratio": float("inf")},
        {"eval_every": -1, "eval_data": "e"},
        {"patience": -1},
        {"checkpoint_every": -1},
        {"optimizer": "sgd"},
        {"precision": "fp8"},
        {"batching": "sorted"},
        {"keep": "first"},
        {"eval_every": 5},
        {"eval_data": "others.jsonl"},
        {"patience": 3},
        {"keep": "best"},
    ],
    ids=str,
)
def test_a_number_that_no_run_can_have_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(RECIPE, **change)


def test_a_recipe_survives_its_file() -> None:
    recipe = replace(RECIPE, options={"rank": 4, "targets": "attention", "rslora": True}, seed=7)
    assert decode_recipe(encode_recipe(recipe)) == recipe


def test_a_recipe_with_everything_survives_its_file() -> None:
    recipe = replace(
        RECIPE, trainer="distill", trainer_options={"temperature": 2.0}, teacher="a/b+0.5*c/d",
        teacher_base="big", eval_data="others.jsonl", eval_every=5, patience=2, keep="best",
        checkpoint_every=10, optimizer="adamw8bit", precision="bf16", batching="packed",
        checkpointing=True, lr_ratio=16.0,
    )  # fmt: skip
    assert decode_recipe(encode_recipe(recipe)) == recipe
