"""What one answer scores, and what a list of scores comes to.

Knows neither engines nor which adapter answered.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from adapterhub.domain.evaluation import Metric

LOWER_IS_BETTER: frozenset[Metric] = frozenset({"perplexity"})
# e^50: a figure past this says nothing more than "hopeless", and its square must not overflow.
MOST_NATS = 50.0


def exact_match(given: str, expected: str) -> float:
    """1.0 when both are the same text once whitespace around them is stripped, else 0.0.

    Nothing else is forgiven: case, punctuation and inner spacing count.
    """
    return float(given.strip() == expected.strip())


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihoods:
    """Per item: the sum of the answer's log-probabilities (natural), and its number of tokens."""

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability over the tokens of all items."""
        return perplexity(math.fsum(self.logprobs), sum(self.tokens))

    @property
    def stderr(self) -> float:
        """Delta method for exp of a ratio of sums (Cochran, Sampling Techniques, 6.3)."""
        n, total = len(self.tokens), sum(self.tokens)
        if n < 2:
            return math.nan
        mean = math.fsum(self.logprobs) / total
        pairs = zip(self.logprobs, self.tokens, strict=True)
        spread = math.fsum((logprob - mean * count) ** 2 for logprob, count in pairs)
        return self.perplexity * math.sqrt(n / (n - 1) * spread) / total

    @property
    def per_item(self) -> tuple[float, ...]:
        pairs = zip(self.logprobs, self.tokens, strict=True)
        return tuple(perplexity(logprob, count) for logprob, count in pairs)


def perplexity(logprob: float, tokens: int) -> float:
    return math.exp(min(-logprob / tokens, MOST_NATS))


def mean_stderr(values: Sequence[float]) -> float:
    """Sample standard deviation over the root of n, as lm-evaluation-harness has it; NaN for n < 2.

    It is 0 when every item scores the same, which is a fact about the sample and no certainty.
    """
    if len(values) < 2:
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))
