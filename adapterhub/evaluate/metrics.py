"""What a metric is: sufficient statistics of each item, and a score of their sum.

Score, standard error, score by item and every resample come from the same array. Knows neither
engines nor which adapter answered; which metrics there are is for `evaluate.measures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from adapterhub.domain.evaluation import Item, Metric, TaskData

Array = npt.NDArray[np.float64]

# e^50: a figure past this says nothing more than "hopeless", and its square must not overflow.
MOST_NATS = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What an engine made of one item; only what its task's metrics read is there.

    `logprobs` has one natural logarithm per token of the expected answer, the end of a turn (the
    last, where the task is a chat) included. `choices` has their sums, the end left out.
    """

    item: Item
    text: str | None = None
    logprobs: tuple[float, ...] = ()
    choices: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A metric. `statistics` gives (items, k) for replies, `score` maps their sums (..., k) to
    (...).

    `reads` is what it needs of an engine: written text, the expected answer's log-probabilities or
    those of all choices. A score is shown in percent (of 1), in points (of 100) or as it is.
    `signature` asks the library that computes it for its settings.
    """

    name: Metric
    heading: str
    reads: Literal["text", "likelihood", "choices"]
    statistics: Callable[[Sequence[Reply], TaskData], Array]
    score: Callable[[Array], Array]
    lower_is_better: bool = False
    shown: Literal["percent", "points", "plain"] = "percent"
    decimals: int = 1
    signature: Callable[[], str] | None = None

    def total(self, statistics: Array) -> float:
        return float(self.score(sums(statistics)))

    def per_item(self, statistics: Array) -> tuple[float, ...]:
        """The score that each item would have if there were no other."""
        return tuple(self.score(statistics).tolist())

    def stderr(self, statistics: Array) -> float:
        """The jackknife's (Efron and Stein 1981, Annals of Statistics 9(3), 586-596); NaN for one.

        For a mean that is the sample standard deviation over the root of n, as
        lm-evaluation-harness has it: 0 when all items score the same, which is a fact about the
        sample and no certainty.
        """
        n = len(statistics)
        if n < 2:
            return math.nan
        if self.score is mean:
            # Said without a difference of sums, whose rounding would show where all are equal.
            values = statistics[:, 0]
            return float(values.std(ddof=1) / math.sqrt(n)) if np.ptp(values) else 0.0
        without = self.score(sums(statistics) - statistics)
        spread = math.fsum((without - without.mean()) ** 2)
        return math.sqrt((n - 1) / n * spread)


def sums(statistics: Array) -> Array:
    """(k,): each column's sum, rounded once."""
    return np.array([math.fsum(column) for column in statistics.T])


def ratio(totals: Array) -> Array:
    found: Array = totals[..., 0] / totals[..., 1]
    return found


def mean(totals: Array) -> Array:
    """Of statistics (value, 1)."""
    return ratio(totals)


def exp_ratio(totals: Array) -> Array:
    """exp of nats a token, or of whatever else the second column counts."""
    found: Array = np.exp(np.minimum(ratio(totals), MOST_NATS))
    return found


def averaged(values: Sequence[float]) -> Array:
    """(items, 2): statistics whose score is the mean of the values."""
    return np.column_stack((np.array(values, dtype=np.float64), np.ones(len(values))))


def exact_match(given: str, expected: str) -> float:
    """1.0 when both are the same text once whitespace around them is stripped, else 0.0.

    Nothing else is forgiven: case, punctuation and inner spacing count.
    """
    return float(given.strip() == expected.strip())


def perplexity(logprob: float, tokens: int) -> float:
    return math.exp(min(-logprob / tokens, MOST_NATS))
