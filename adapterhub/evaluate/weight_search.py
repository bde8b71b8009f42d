"""Find the weights of adapters that are attached together, by how likely they make right answers.

Knows slots and rows; attaching, and where rows come from, is the caller's business. Rows that the
search never saw have the last word.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from adapterhub.domain.engines import Engine, ScoreRequest, Slots
from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.scales import ModuleWeights
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub.evaluate.compare import Difference, mean_difference
from adapterhub.evaluate.metrics import MOST_NATS
from adapterhub.evaluate.simplex import Point, Trial, best_of, minimise
from adapterhub.evaluate.tasks.files import items_digest
from adapterhub.runtime.reference import ReferenceEngine

LOW, HIGH = 0.0, 2.0
_FEWEST = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Those that are searched on, and as many that judge what was found; `sha256` is of both."""

    searched: tuple[Item, ...]
    judging: tuple[Item, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Every trial, the weights as written first. Values are losses: minus the mean over the rows of
    the mean log-likelihood of an answer's tokens, in nats. `gain` is how much lower the best one's
    loss is than the first one's, on the rows that the search did not see."""

    trials: tuple[Trial, ...]
    rows: Rows
    judged: tuple[float, float]
    gain: Difference

    @property
    def start(self) -> Trial:
        return self.trials[0]

    @property
    def best(self) -> Trial:
        return best_of(self.trials)

    @property
    def holds(self) -> bool:
        """Whether it is for sure a gain on other rows too."""
        return self.gain.separable and self.gain.delta > 0

    @property
    def weights(self) -> Point:
        """What is to be written down."""
        return self.best.point if self.holds else self.start.point

    def to_json(self) -> dict[str, Any]:
        ci95 = self.gain.ci95
        return {
            "rows_sha256": self.rows.sha256,
            "searched_on": {
                "n": len(self.rows.searched),
                "loss_start": self.start.value,
                "loss_end": self.best.value,
            },
            "judged_on": {
                "n": len(self.rows.judging),
                "loss_start": self.judged[0],
                "loss_end": self.judged[1],
                "gain": self.gain.delta,
                "ci95": list(ci95) if ci95 else None,
            },
            "taken": self.holds,
            "weights": list(self.weights),
            "trials": [
                {
                    "weights": list(trial.point),
                    "loss": trial.value if math.isfinite(trial.value) else None,
                }
                for trial in self.trials
            ],
        }


def split_rows(items: Sequence[Item], *, limit: int, name: str) -> Rows:
    """At most `limit` rows of different conversations, every other one to judge by.

    Raises UsageError where there are too few.
    """
    distinct: dict[tuple[Message, ...], Item] = {}
    for item in items:
        distinct.setdefault(item.messages, item)
    drawn = list(distinct.values())
    random.Random(0).shuffle(drawn)
    drawn = drawn[:limit]
    if len(drawn) < _FEWEST:
        raise UsageError(
            f"{len(drawn)} rows of {name} are too few to search on some and judge by others",
            hint=f"give {_FEWEST} different ones at least, better 50 or more",
        )
    return Rows(searched=tuple(drawn[::2]), judging=tuple(drawn[1::2]), sha256=items_digest(drawn))


def search(
    engine: Engine,
    slots: Sequence[tuple[str, float]],
    rows: Rows,
    *,
    trials: int,
    scaled: Mapping[str, ModuleWeights] = MappingProxyType({}),
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Found:
    """Search from the weights in `slots`, between 0 and 2 or as far as those go. `scaled` is what
    the modules of some slots weigh where the whole weighs 1.

    Raises CapabilityError for an adapter to which a weight means nothing, MismatchError where the
    weights to begin with give log-probabilities that are not finite.
    """
    names = [slot for slot, _ in slots]
    start = tuple(weight for _, weight in slots)

    def losses(weights: Point, items: Sequence[Item]) -> list[float]:
        # One of weight 0 takes no part, as in the composition that is written.
        taking_part = tuple(
            (s, scaled[s].times(w) if s in scaled else w)
            for s, w in zip(names, weights, strict=True)
            if w
        )
        return _losses(engine, taking_part, items)

    tried = minimise(
        lambda weights: _mean(losses(weights, rows.searched)),
        start,
        low=min(LOW, *start),
        high=max(HIGH, *start),
        trials=trials,
        on_trial=on_trial,
    )
    first = losses(tried[0].point, rows.judging)
    if not math.isfinite(tried[0].value + _mean(first)):
        raise MismatchError(
            "the weights to begin with give log-probabilities that are not finite",
            hint="`adapterhub verify` checks the adapters; lower --weights may help",
        )
    before = _capped(first)
    after = _capped(losses(best_of(tried).point, rows.judging))
    gain = mean_difference([-loss for loss in after], [-loss for loss in before])
    return Found(trials=tried, rows=rows, judged=(_mean(before), _mean(after)), gain=gain)


def check_weighable(engine: ReferenceEngine, named: Sequence[tuple[str, str]]) -> None:
    """Of (ref, slot) pairs. Raises CapabilityError naming one to which a weight means nothing."""
    for ref, slot in named:
        try:
            engine.rack.check_weight(slot, 0.5)
        except CapabilityError as error:
            raise CapabilityError(
                f"{ref} takes no weight to search for: {error.message}", hint=error.hint
            ) from error


def _losses(engine: Engine, slots: Slots, items: Sequence[Item]) -> list[float]:
    """Of each answer: minus the mean log-likelihood of its tokens."""
    scores = engine.score(
        [ScoreRequest(messages=item.messages, answer=item.answer, slots=slots) for item in items]
    )
    return [-math.fsum(score.logprobs) / len(score.logprobs) for score in scores]


def _capped(losses: Sequence[float]) -> list[float]:
    """What overflows on a row of the judging half is as bad as a figure gets."""
    return [loss if loss < MOST_NATS else MOST_NATS for loss in losses]


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)
