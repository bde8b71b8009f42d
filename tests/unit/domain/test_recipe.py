"""A recipe refuses what no run can do, and says which rate each step has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.domain.recipe import SCHEDULES, Recipe, Schedule, learning_rate_at
from adapterhub.errors import UsageError


def recipe(**settings: Any) -> Recipe:
    return Recipe(base="b", data="d", **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "--steps 0 is too small"),
        ({"batch_size": 0}, "--batch-size 0 is too small"),
        ({"accumulate": -1}, "--accumulate -1 is too small"),
        ({"batch_size": 8, "accumulate": 3}, "a batch of 8 does not divide into 3 parts"),
        ({"learning_rate": 0.0}, "trains nothing"),
        ({"learning_rate": -1e-3}, "trains nothing"),
        ({"learning_rate": 2.0}, "trains nothing"),
        ({"learning_rate": float("nan")}, "trains nothing"),
        ({"learning_rate": float("inf")}, "trains nothing"),
        ({"schedule": "sawtooth"}, "no schedule is called 'sawtooth'"),
    ],
    ids=str,
)
def test_a_number_no_run_can_have_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        recipe(**settings)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("schedule", "last"), [("constant", 1.0), ("linear", 0.1), ("cosine", 0.1)]
)
def test_the_rate_climbs_to_the_peak_and_ends_at_a_tenth(schedule: Schedule, last: float) -> None:
    run = recipe(steps=1000, warmup=0.1, learning_rate=1e-3, schedule=schedule)
    rates = [learning_rate_at(run, step) / 1e-3 for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == rates[100] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(last, abs=0.002)


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(SCHEDULES), st.floats(1e-6, 1))
def test_every_step_has_a_rate_above_zero_and_none_above_the_peak(
    steps: int, warmup: float, schedule: Schedule, peak: float
) -> None:
    run = recipe(steps=steps, warmup=warmup, schedule=schedule, learning_rate=peak)
    rates = [learning_rate_at(run, step) for step in range(steps)]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)


def test_one_step_trains_at_the_full_rate() -> None:
    assert learning_rate_at(recipe(steps=1, learning_rate=0.5), 0) == 0.5
