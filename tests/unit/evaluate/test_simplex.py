"""The lowest value is found by values alone, within the box and the budget."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from adapterhub.evaluate.simplex import Point, Trial, best_of, minimise


def search(value: Callable[[Point], float], start: Point, trials: int = 200) -> tuple[Trial, ...]:
    return minimise(value, start, low=0.0, high=2.0, trials=trials)


def bowl(*lowest: float) -> Callable[[Point], float]:
    """Steeper with each axis."""
    return lambda point: math.fsum(
        (axis + 1) * (x - low) ** 2 for axis, (x, low) in enumerate(zip(point, lowest, strict=True))
    )


def rosenbrock(point: Point) -> float:
    x, y = point
    return (1.4 - x) ** 2 + 100 * (y - x**2 / 1.4) ** 2


@pytest.mark.parametrize("lowest", [(0.3,), (0.7, 1.3), (0.25, 1.9, 1.0), (0.5, 0.6, 0.7, 0.8)])
def test_the_bottom_of_a_bowl_is_found(lowest: Point) -> None:
    tried = search(bowl(*lowest), (1.0,) * len(lowest), trials=60 * len(lowest))
    assert best_of(tried).point == pytest.approx(lowest, abs=0.02)


def test_forty_trials_go_most_of_the_way_for_two() -> None:
    value = bowl(0.45, 1.2)
    tried = search(value, (1.0, 1.0), trials=40)
    assert best_of(tried).value < 0.005 * value((1.0, 1.0))


def test_a_bent_valley_is_followed() -> None:
    assert best_of(search(rosenbrock, (0.2, 1.8))).value < 0.01


def test_a_slope_is_followed_along_two_numbers_at_once() -> None:
    def slanted(point: Point) -> float:
        x, y = point
        return 50 * (x + y - 2) ** 2 + (x - y - 1) ** 2

    assert best_of(search(slanted, (1.0, 1.0))).point == pytest.approx((1.5, 0.5), abs=0.03)


@pytest.mark.parametrize("lowest", [(-1.0, 0.6), (5.0, 5.0), (-1.0, -1.0), (0.6, 3.0, -2.0)])
def test_a_bottom_outside_is_met_at_the_edge(lowest: Point) -> None:
    tried = search(bowl(*lowest), (1.0,) * len(lowest))
    assert all(0.0 <= x <= 2.0 for trial in tried for x in trial.point)
    inside = tuple(min(max(x, 0.0), 2.0) for x in lowest)
    assert best_of(tried).point == pytest.approx(inside, abs=0.02)


def test_seven_are_searched_one_at_a_time() -> None:
    lowest = (0.5, 1.5, 1.0, 0.0, 2.0, 0.75, 1.25)
    assert best_of(search(bowl(*lowest), (1.0,) * 7)).point == pytest.approx(lowest, abs=0.02)


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("trials", [1, 2, 7, 40])
def test_the_budget_holds_and_nothing_is_tried_twice(size: int, trials: int) -> None:
    asked: list[Point] = []

    def counted(point: Point) -> float:
        asked.append(point)
        return bowl(*(0.1 * axis for axis in range(size)))(point)

    tried = search(counted, (1.0,) * size, trials=trials)
    assert [trial.point for trial in tried] == asked
    assert len(set(asked)) == len(asked) <= trials
    assert asked[0] == (1.0,) * size


@pytest.mark.parametrize("nothing", [math.inf, math.nan, 1.0])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_where_all_is_equal_the_start_is_best_and_the_search_ends(
    nothing: float, size: int
) -> None:
    tried = search(lambda _: nothing, (1.0,) * size, trials=10_000)
    assert best_of(tried).point == (1.0,) * size
    assert len(tried) < 1000


def test_points_without_a_value_are_walked_round() -> None:
    def torn(point: Point) -> float:
        return math.nan if point[0] > 1.2 else bowl(1.1, 0.4)(point)

    assert best_of(search(torn, (1.0, 1.0))).point == pytest.approx((1.1, 0.4), abs=0.02)


def test_the_same_function_gives_the_same_trials() -> None:
    assert search(rosenbrock, (1.0, 1.0)) == search(rosenbrock, (1.0, 1.0))
