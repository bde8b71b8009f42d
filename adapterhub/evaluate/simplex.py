"""Find the lowest value of a function of a few numbers in a box, by its values alone.

Knows nothing of what the numbers are. Up to six of them the simplex of Nelder and Mead (1965, The
Computer Journal 7(4), 308-313), kept in the box as Richardson and Kuester do (1973, CACM 16(8),
487-489) and begun anew at its best point for as long as that helps; beyond, one number at a time.
Nothing is drawn: the same function gives the same trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter

Point = tuple[float, ...]

MOST_OF_A_SIMPLEX = 6
_STEP = 0.5
_FINEST = 0.01
_DECIMALS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A point that was tried, and its value; infinite where it has none."""

    point: Point
    value: float


def minimise(
    value: Callable[[Point], float],
    start: Point,
    *,
    low: float,
    high: float,
    trials: int,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> tuple[Trial, ...]:
    """Every point that was tried, in order, `start` first; at most `trials` of them.

    Points are rounded to three decimals before they are tried, and none is tried twice.
    """
    box = _Box(value=value, low=low, high=high, trials=trials, on_trial=on_trial)
    search = _simplex if len(start) <= MOST_OF_A_SIMPLEX else _coordinates
    with suppress(_SpentError):
        search(box, start)
    return tuple(box.tried.values())


def best_of(tried: tuple[Trial, ...]) -> Trial:
    """The first of the lowest."""
    return min(tried, key=lambda trial: trial.value)


class _SpentError(Exception):
    """There is no trial left."""


@dataclass(slots=True)
class _Box:
    value: Callable[[Point], float]
    low: float
    high: float
    trials: int
    on_trial: Callable[[Trial], None]
    tried: dict[Point, Trial] = field(default_factory=dict)

    def __call__(self, point: Point) -> tuple[float, Point]:
        """(value, the point inside the box that was tried for it)."""
        point = tuple(round(min(max(x, self.low), self.high), _DECIMALS) for x in point)
        if point not in self.tried:
            if len(self.tried) >= self.trials:
                raise _SpentError
            found = self.value(point)
            trial = Trial(point=point, value=math.inf if math.isnan(found) else found)
            self.tried[point] = trial
            self.on_trial(trial)
        return self.tried[point].value, point

    def stepped(self, point: Point, axis: int, step: float) -> Point:
        """One number changed, away from the edge that is nearer."""
        x = point[axis]
        moved = x - step if x - self.low >= step else x + step
        return (*point[:axis], moved, *point[axis + 1 :])


def _simplex(box: _Box, start: Point) -> None:
    step, best = _STEP, box(start)
    while step >= _FINEST:
        corners = [best, *(box(box.stepped(best[1], axis, step)) for axis in range(len(start)))]
        found = _descended(box, corners)
        # A simplex that lies flat against an edge stops early: a new one has its full width.
        if found[0] >= best[0]:
            step /= 4
        best = min(best, found, key=itemgetter(0))


def _descended(box: _Box, corners: list[tuple[float, Point]]) -> tuple[float, Point]:
    """The best corner once the simplex has shrunk to a point."""
    while True:
        corners.sort(key=itemgetter(0))
        best, worst = corners[0], corners[-1]
        if _width(corners) < _FINEST:
            return best
        rest = corners[:-1]
        centre = tuple(math.fsum(xs) / len(rest) for xs in zip(*(p for _, p in rest), strict=True))
        mirrored = box(_towards(centre, worst[1], -1.0))
        if mirrored[0] < best[0]:
            corners[-1] = min(mirrored, box(_towards(centre, worst[1], -2.0)), key=itemgetter(0))
        elif mirrored[0] < rest[-1][0]:
            corners[-1] = mirrored
        else:
            nearer = min(mirrored, worst, key=itemgetter(0))
            inside = box(_towards(centre, nearer[1], 0.5))
            if inside[0] < nearer[0]:
                corners[-1] = inside
            else:
                corners[1:] = [box(_towards(best[1], point, 0.5)) for _, point in corners[1:]]


def _towards(one: Point, other: Point, share: float) -> Point:
    return tuple(a + share * (b - a) for a, b in zip(one, other, strict=True))


def _width(corners: list[tuple[float, Point]]) -> float:
    first = corners[0][1]
    return max(abs(a - b) for _, point in corners[1:] for a, b in zip(point, first, strict=True))


def _coordinates(box: _Box, start: Point) -> None:
    """Each number in turn, down and up by a step that is halved when none of them helps."""
    step, best = _STEP, box(start)
    while step >= _FINEST:
        before = best[0]
        for axis in range(len(start)):
            for moved in (-step, step):
                point = list(best[1])
                point[axis] += moved
                found = box(tuple(point))
                if found[0] < best[0]:
                    best = found
                    break
        if best[0] >= before:
            step /= 2
