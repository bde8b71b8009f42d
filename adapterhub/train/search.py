"""Plan a search for the learning rate, and judge what its trials say.

A range test (Smith, arXiv 1506.01186) finds between which rates to look; successive halving
(Jamieson & Talwalkar, arXiv 1502.07943) finds the one. Numbers in, numbers out: it has never seen a
tensor, a base or a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from adapterhub.domain.recipe import Recipe

# LoRA wants about ten times the rate of full fine-tuning, whatever its rank ("LoRA Without Regret",
# Thinking Machines 2025).
_ADAPTER_RATE, _FULL_RATE = 1e-3, 1e-4
_RANGE_STEPS = 40
_RATES = 8
_FIRST_STEPS = (4, 50)
_SMOOTHING = 0.7
_EXPLOSION = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeTest:
    """One run of `steps` steps whose rate rises from `low` to `high` by the same factor a step."""

    low: float
    high: float
    steps: int

    def rate(self, step: int) -> float:
        """That of a step, counted from 0."""
        share = min(1.0, step / max(1, self.steps - 1))
        return float(self.low * (self.high / self.low) ** share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """`runs` rates train for `steps` steps each, from fresh adapters."""

    runs: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a search will do at most."""

    range_test: RangeTest
    rungs: tuple[Rung, ...]

    @property
    def steps(self) -> int:
        return self.range_test.steps + sum(rung.runs * rung.steps for rung in self.rungs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A step of the range test: its rate, and the loss before it."""

    rate: float
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One short run at one rate. `folds` are the losses after it on equal parts of the rows held
    out, the same in every trial; empty where the run diverged. `train_loss` is that of its last
    batch, None where not one step was good."""

    rate: float
    steps: int
    train_loss: float | None
    folds: tuple[float, ...]

    @property
    def held_out(self) -> float:
        """The mean loss a token on rows held out; infinite where there is none."""
        if not self.folds:
            return math.inf
        return math.fsum(self.folds) / len(self.folds)


def starting_rate(preset: Mapping[str, Any], *, share: float) -> float:
    """Where to look first: a method's own preset, else the known rule. `share` is how many numbers
    the method trains for each that the base has."""
    own = preset.get("learning_rate")
    if isinstance(own, (int, float)):
        return float(own)
    return _FULL_RATE if share >= 0.5 else _ADAPTER_RATE


def plan_search(recipe: Recipe, *, start: float) -> Plan:
    """A search round the rate `start`, whose trials are short beside the recipe's own run."""
    least, most = _FIRST_STEPS
    first = max(least, min(most, recipe.steps // 8))
    return Plan(
        range_test=RangeTest(low=start / 100, high=min(1.0, start * 100), steps=_RANGE_STEPS),
        rungs=rungs(_RATES, first=first),
    )


def rungs(rates: int, *, first: int) -> tuple[Rung, ...]:
    """Half as many rates, twice as many steps, until one is left."""
    made = []
    while rates > 1:
        made.append(Rung(runs=rates, steps=first))
        rates, first = (rates + 1) // 2, 2 * first
    return tuple(made)


def smoothed(losses: Sequence[float]) -> list[float]:
    """A moving average, free of the pull to 0 that its beginning would have."""
    made, total, weight = [], 0.0, 0.0
    for loss in losses:
        total = _SMOOTHING * total + (1 - _SMOOTHING) * loss
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        made.append(total / weight)
    return made


def exploded(losses: Sequence[float]) -> bool:
    """Whether the last loss of a range test ends it: not finite, or four times the lowest so far
    and worse than at the start. What only bounces about a loss near 0 has not exploded."""
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    curve = smoothed(losses)
    return curve[-1] > _EXPLOSION * min(curve) and curve[-1] > curve[0]


def bounds(points: Sequence[Point], *, start: float) -> tuple[float, float]:
    """(lowest, highest) rate worth a trial, at least a factor of ten apart.

    The highest is where the loss of the range test was lowest, before it rose again; the lowest
    from where on a tenth of that fall was done. `start` lies between them unless the loss rose
    before it.
    """
    finite = [point for point in points if math.isfinite(point.loss)]
    curve = smoothed([point.loss for point in finite])
    lowest = min(range(len(curve)), key=curve.__getitem__) if curve else 0
    if lowest == 0:
        # Nothing was learnt. Do not look where it got worse.
        high = min([10 * start, *(point.rate for point in finite[-1:])])
        return min(start, high) / 10, high
    high = finite[lowest].rate
    # The first losses are those of rates that do nothing yet: between them there is only noise.
    level = median(curve[: lowest // 4 + 1])
    wanted = level - 0.1 * (level - curve[lowest])
    first = next(i for i in range(lowest, -1, -1) if i == 0 or curve[i - 1] > wanted)
    return min(finite[first].rate, start, high / 10), high


def spaced_rates(low: float, high: float, count: int = _RATES) -> tuple[float, ...]:
    """`count` rates from low to high by one factor, each with the two digits one would write."""
    ratio = (high / low) ** (1 / max(1, count - 1))
    made = (float(f"{low * ratio**number:.1e}") for number in range(count))
    return tuple(sorted({min(1.0, rate) for rate in made}))


def better_half(trials: Sequence[Trial], keep: int) -> tuple[Trial, ...]:
    """The `keep` best trials of a rung, best first; of those that tie, the smallest rate first."""
    left, kept = list(trials), list[Trial]()
    while left and len(kept) < keep:
        best = min(left, key=lambda trial: (trial.held_out, trial.rate))
        tied = [trial for trial in left if trial is best or _ties(trial, best)]
        chosen = min(tied, key=lambda trial: trial.rate)
        kept.append(chosen)
        left.remove(chosen)
    return tuple(kept)


def _ties(trial: Trial, best: Trial) -> bool:
    """Whether a trial is worse by less than one standard error of the difference, taken on the same
    rows (the one-standard-error rule of Breiman et al., 1984)."""
    if not math.isfinite(trial.held_out):
        return False
    worse = [a - b for a, b in zip(trial.folds, best.folds, strict=True)]
    mean = math.fsum(worse) / len(worse)
    if len(worse) < 2:
        return mean <= 0
    variance = math.fsum((one - mean) ** 2 for one in worse) / (len(worse) - 1)
    return mean <= math.sqrt(variance / len(worse))
