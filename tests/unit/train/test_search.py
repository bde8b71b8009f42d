"""The plan of a search for the learning rate, and its verdicts, by figures alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from adapterhub.domain.recipe import Recipe
from adapterhub.train.search import (
    Point,
    RangeTest,
    Trial,
    better_half,
    bounds,
    exploded,
    plan_search,
    rungs,
    spaced_rates,
    starting_rate,
)


def trial(rate: float, *folds: float) -> Trial:
    return Trial(rate=rate, steps=5, train_loss=1.0, folds=folds)


def curve(loss: Callable[[float], float]) -> list[Point]:
    """A range test from 1e-5 to 1e-1 of a loss that depends on the rate."""
    test = RangeTest(low=1e-5, high=1e-1, steps=41)
    return [Point(rate=test.rate(i), loss=loss(math.log10(test.rate(i)))) for i in range(41)]


# --- the plan ---------------------------------------------------------------------------------


def test_a_range_test_rises_by_one_factor_from_end_to_end() -> None:
    test = RangeTest(low=1e-5, high=1e-1, steps=5)
    assert [test.rate(step) for step in range(5)] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])


def test_each_rung_has_half_as_many_rates_for_twice_as_many_steps() -> None:
    assert [(r.runs, r.steps) for r in rungs(8, first=5)] == [(8, 5), (4, 10), (2, 20)]
    assert [(r.runs, r.steps) for r in rungs(7, first=5)] == [(7, 5), (4, 10), (2, 20)]
    assert rungs(1, first=5) == ()


@pytest.mark.parametrize(("steps", "cost"), [(1, 136), (100, 328), (1000, 1240), (100_000, 1240)])
def test_a_plan_says_what_it_costs_at_most(steps: int, cost: int) -> None:
    recipe = Recipe(base="b", data="d", steps=steps)
    assert plan_search(recipe, start=1e-3).steps == cost


def test_no_rate_of_a_plan_is_above_one() -> None:
    assert plan_search(Recipe(base="b", data="d"), start=0.5).range_test.high == 1
    assert max(spaced_rates(0.1, 1.0)) == 1


@pytest.mark.parametrize(
    ("preset", "share", "rate"),
    [({}, 0.01, 1e-3), ({}, 1.0, 1e-4), ({"learning_rate": 2e-4}, 0.01, 2e-4)],
    ids=["adapter", "all weights", "preset"],
)
def test_where_a_search_starts(preset: dict[str, float], share: float, rate: float) -> None:
    assert starting_rate(preset, share=share) == rate


# --- the range test ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ([], False),
        ([2.0, 1.9, float("nan")], True),
        ([2.0, 1.0, 1.0, 40.0], True),
        ([2.0, 1.0, 1.0, 2.5], False),
        ([2.0] + [0.01] * 20 + [0.5], False),
    ],
    ids=["nothing yet", "not finite", "explosion", "a bump", "noise near zero"],
)
def test_a_range_test_ends_when_the_loss_explodes(losses: Sequence[float], ends: bool) -> None:
    assert exploded(losses) is ends


def test_the_bounds_reach_from_the_first_fall_to_the_lowest_loss() -> None:
    """The loss falls from 1e-4 on and is lowest at 1e-2."""
    low, high = bounds(curve(lambda x: 2 + abs(x + 2) if x > -4 else 4), start=1e-3)
    assert 1e-4 < low < 5e-4
    assert 1e-2 <= high < 3e-2


def test_noise_before_the_fall_is_no_fall() -> None:
    """Batches differ by 8%, and the first of all is the hardest."""
    points = curve(lambda x: 6.6 if x < -3 else 6.6 - 2 * (x + 3))
    noisy = [
        Point(rate=p.rate, loss=p.loss * (0.92, 1.0, 1.08)[i % 3]) for i, p in enumerate(points)
    ]
    low, _ = bounds([Point(rate=1e-5, loss=7.2), *noisy[1:]], start=1e-1)
    assert 5e-4 < low < 5e-3


def test_the_start_is_between_the_bounds() -> None:
    low, high = bounds(curve(lambda x: 2 + abs(x + 2) if x > -4 else 4), start=2e-5)
    assert low == 2e-5 < high


def test_a_start_at_which_the_loss_has_risen_is_not() -> None:
    low, high = bounds(curve(lambda x: abs(x + 4)), start=1e-2)
    assert low < 1e-4 < high < 1e-2


def test_the_bounds_are_a_factor_of_ten_apart() -> None:
    low, high = bounds(curve(lambda x: 4.0 if x < -2 else 1.0), start=1e-1)
    assert low <= high / 10


@pytest.mark.parametrize("loss", [lambda x: 4.0, lambda x: 4.0 + (x + 5)], ids=["flat", "rising"])
def test_a_range_test_that_learns_nothing_leaves_the_start(loss: Callable[[float], float]) -> None:
    low, high = bounds(curve(loss), start=1e-3)
    assert low == pytest.approx(1e-4)
    assert high == pytest.approx(1e-2)


def test_rates_are_evenly_spaced_with_two_digits() -> None:
    rates = spaced_rates(1e-4, 1e-2)
    assert rates[0] == 1e-4
    assert rates[-1] == 1e-2
    assert len(rates) == 8
    assert all(rate == float(f"{rate:.1e}") for rate in rates)
    factors = [b / a for a, b in pairwise(rates)]
    assert max(factors) / min(factors) < 1.1


# --- halving ----------------------------------------------------------------------------------


def test_the_better_half_goes_on() -> None:
    trials = [trial(1e-4, 4, 4.1), trial(1e-3, 2, 2.1), trial(1e-2, 3, 3.1), trial(1e-1, 9, 9.1)]
    assert [t.rate for t in better_half(trials, 2)] == [1e-3, 1e-2]


def test_of_two_that_differ_by_noise_the_smaller_rate_is_better() -> None:
    large, small = trial(1e-2, 2.0, 1.0, 3.0, 2.0), trial(1e-3, 2.4, 0.9, 2.8, 2.1)
    assert large.held_out < small.held_out
    assert better_half([large, small], 1) == (small,)


def test_of_two_that_differ_alike_on_all_rows_the_better_one_is() -> None:
    large, small = trial(1e-2, 2.0, 1.0, 3.0, 2.0), trial(1e-3, 2.1, 1.1, 3.1, 2.1)
    assert better_half([large, small], 1) == (large,)


def test_the_larger_rate_gains_nothing_by_noise() -> None:
    small, large = trial(1e-3, 2.0, 1.0, 3.0, 2.0), trial(1e-2, 2.4, 0.9, 2.8, 2.1)
    assert better_half([large, small], 1) == (small,)


def test_one_row_held_out_decides_by_its_loss() -> None:
    assert better_half([trial(1e-3, 2.0), trial(1e-2, 1.9)], 1)[0].rate == 1e-2
    assert better_half([trial(1e-3, 2.0), trial(1e-2, 2.0)], 1)[0].rate == 1e-3


def test_a_run_that_diverged_is_worse_than_any_other() -> None:
    assert better_half([trial(1e-4), trial(1e-3), trial(1e-2, 9.0, 9.0)], 1)[0].rate == 1e-2
    assert [t.rate for t in better_half([trial(1e-3), trial(1e-4)], 1)] == [1e-4]
