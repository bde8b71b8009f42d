"""Run a planned search for the learning rate: short trainings on one loaded base.

Each is a fresh adapter from the same seed that sees the same rows in the same order. One that goes
on to the next rung is trained again, with twice the steps: only a run with its own warm-up and its
whole schedule says how its rate ends. What is tried next, the plan decides; files are the caller's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from adapterhub.domain.protocols import AttachedAdapter, Example, Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import DataError, Terminated, TrainingError
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack
from adapterhub.train.checks import check_room
from adapterhub.train.loop import Outcome, Step, fit
from adapterhub.train.passes import Passes
from adapterhub.train.search import (
    Plan,
    Point,
    Trial,
    better_half,
    bounds,
    exploded,
    plan_search,
    spaced_rates,
    starting_rate,
)

Rows = Literal["eval_data", "data"]
_HELD_OUT, _SHARE, _FOLDS = 64, 5, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The rate a search chose, and everything it was chosen by.

    `held_out` rows of the recipe's `held_out_from` judged the trials; `steps` is what was really
    trained, a search being cut short where the loss explodes.
    """

    rate: float
    start: float
    low: float
    high: float
    points: tuple[Point, ...]
    trials: tuple[Trial, ...]
    held_out: int
    held_out_from: Rows
    steps: int


@dataclass(kw_only=True)
class Search:
    """Where trials take place: a base with its rack, and the slot each adapter has in turn.

    `watch` hears how many steps are done, of how many at most, and what is being done.
    """

    recipe: Recipe
    rack: Rack
    slot: str
    config: Mapping[str, Any]
    objective: Objective
    train: Sequence[Example]
    held_out: Sequence[Example]
    held_out_from: Rows
    say: Callable[[str], None] = lambda _: None
    watch: Callable[[int, int, str], None] = lambda done, of, what: None
    _done: int = field(default=0, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    def find(self, start: float | None = None) -> Found:
        """Search round `start`, or round what the method's preset or the known rule says.

        Raises TrainingError when every rate diverges.
        """
        start = start or self._usual_start()
        plan = plan_search(self.recipe, start=start)
        self.say(_announcement(plan, start, len(self.held_out)))
        points = self._range_test(plan)
        low, high = bounds(points, start=start)
        trials, chosen = self._halve(plan, spaced_rates(low, high))
        if not chosen.folds:
            raise TrainingError(
                f"training diverges at every rate from {low:.1e} to {high:.1e}",
                hint=f"check the rows of {self.recipe.data}, or search lower: --lr {low / 10:.0e}",
            )
        return Found(
            rate=chosen.rate,
            start=start,
            low=low,
            high=high,
            points=points,
            trials=tuple(trials),
            held_out=len(self.held_out),
            held_out_from=self.held_out_from,
            steps=self._done,
        )

    def _usual_start(self) -> float:
        preset = catalog().methods[self.recipe.method].preset
        with self._adapter() as adapter:
            trained = sum(tensor.numel() for tensor in adapter.parameters().values())
        base = sum(tensor.numel() for tensor in self.rack.base.parameters().values())
        return starting_rate(preset, share=trained / base)

    def _range_test(self, plan: Plan) -> tuple[Point, ...]:
        test, points = plan.range_test, list[Point]()

        def note(step: Step) -> None:
            points.append(Point(rate=step.learning_rate, loss=step.loss))
            self._count(plan, f"range test at {step.learning_rate:.1e}")
            if exploded([point.loss for point in points]):
                raise _ExplodedError

        recipe = _short(self.recipe, steps=test.steps, rate=test.low)
        with self._adapter() as adapter, suppress(_ExplodedError):
            self._check_room(adapter)
            self._fit(recipe, adapter, note, rate=test.rate)
        return tuple(points)

    def _halve(self, plan: Plan, rates: tuple[float, ...]) -> tuple[list[Trial], Trial]:
        """Every trial of the rungs, and the one that is left."""
        trials: list[Trial] = []
        kept: tuple[Trial, ...] = ()
        for number, rung in enumerate(plan.rungs):
            made = [self._trial(rate, rung.steps, plan) for rate in rates]
            trials += made
            last = number + 1 == len(plan.rungs)
            kept = better_half(made, 1 if last else plan.rungs[number + 1].runs)
            rates = tuple(sorted(trial.rate for trial in kept))
        return trials, kept[0]

    def _trial(self, rate: float, steps: int, plan: Plan) -> Trial:
        def note(step: Step) -> None:
            self._count(plan, f"{steps} steps at {rate:g}")

        recipe = _short(self.recipe, steps=steps, rate=rate)
        with self._adapter() as adapter:
            outcome = self._fit(recipe, adapter, note)
            folds = self._judge(recipe, outcome) if outcome.stopped == "finished" else ()
        loss = outcome.steps[-1].loss if outcome.steps else None
        return Trial(rate=rate, steps=steps, train_loss=loss, folds=folds)

    def _fit(
        self,
        recipe: Recipe,
        adapter: AttachedAdapter,
        note: Callable[[Step], None],
        rate: Callable[[int], float] | None = None,
    ) -> Outcome:
        outcome = fit(
            recipe, self.rack.base, adapter, self.objective, self.train,
            on_step=note, rate=rate, say=self._say_once,
        )  # fmt: skip
        if outcome.stopped == "interrupted":
            raise KeyboardInterrupt
        if outcome.stopped == "terminated":
            raise Terminated
        return outcome

    def _judge(self, recipe: Recipe, outcome: Outcome) -> tuple[float, ...]:
        """The losses on equal parts of the rows held out, of the adapter as it is."""
        base = self.rack.base
        part = math.ceil(recipe.batch_size / outcome.accumulate)
        passes = Passes(recipe=recipe, base=base, objective=self.objective, part=part, say=self.say)
        count = min(_FOLDS, len(self.held_out))
        # Rows of all lengths in each.
        ordered = sorted(self.held_out, key=lambda example: len(example.ids))
        try:
            folds = tuple(passes.mean_loss(ordered[first::count]) for first in range(count))
            return folds if all(math.isfinite(loss) for loss in folds) else ()
        finally:
            base.model.eval()

    @contextmanager
    def _adapter(self) -> Iterator[AttachedAdapter]:
        """A fresh one, the same each time, which is gone afterwards."""
        adapter = self.rack.attach_fresh(
            self.slot, self.recipe.method, self.config, seed=self.recipe.seed
        )
        try:
            yield adapter
        finally:
            self.rack.detach(self.slot)

    def _check_room(self, adapter: AttachedAdapter) -> None:
        data, base = self.recipe.data, self.rack.base
        held_out = data if self.held_out_from == "data" else self.recipe.eval_data or ""
        check_room(base, adapter, self.train, name=Path(data).name)
        check_room(base, adapter, self.held_out, name=Path(held_out).name)

    def _say_once(self, text: str) -> None:
        """Every trial has the same to say of the same adapter."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def _count(self, plan: Plan, what: str) -> None:
        self._done += 1
        self.watch(self._done, plan.steps, what)


class _ExplodedError(Exception):
    """The range test has seen enough."""


def set_aside(
    examples: Sequence[Example], *, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(rows to train on, a fifth to judge by, 64 at most); equal rows are never on both sides.

    Raises DataError where there is nothing to set aside.
    """
    distinct = list(dict.fromkeys(example.ids for example in examples))
    if len(distinct) < 2:
        raise DataError(
            "one row alone cannot be both trained on and held out to judge a rate by",
            hint="add rows, or name others: --eval-data FILE",
        )
    random.Random(seed).shuffle(distinct)
    aside = set(distinct[: max(1, min(_HELD_OUT, len(distinct) // _SHARE))])
    held = {example.ids: example for example in examples if example.ids in aside}
    return tuple(example for example in examples if example.ids not in aside), tuple(held.values())


def some_of(examples: Sequence[Example], *, seed: int) -> tuple[Example, ...]:
    """At most as many rows to judge by as `set_aside` would take."""
    if len(examples) <= _HELD_OUT:
        return tuple(examples)
    return tuple(random.Random(seed).sample(examples, k=_HELD_OUT))


def _short(recipe: Recipe, *, steps: int, rate: float) -> Recipe:
    """The recipe for so many steps, without what only a whole run needs."""
    return replace(
        recipe, steps=steps, learning_rate=rate, eval_data=None, eval_every=0, patience=0,
        keep="last", checkpoint_every=0,
    )  # fmt: skip


def _announcement(plan: Plan, start: float, held_out: int) -> str:
    ladder = ", ".join(f"{rung.runs} x {rung.steps}" for rung in plan.rungs)
    return (
        f"looking for a rate round {start:g}: at most {plan.steps} steps "
        f"(range test {plan.range_test.steps}; trials {ladder}), judged by {held_out} rows"
    )
