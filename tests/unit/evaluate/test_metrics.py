"""Metrics: what counts as right, and perplexity with its standard error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from adapterhub.evaluate.metrics import Likelihoods, exact_match, mean_stderr, perplexity


@pytest.mark.parametrize(
    ("given", "expected", "score"),
    [
        ("1998-07-14", "1998-07-14", 1.0),
        (" 1998-07-14\n", "1998-07-14", 1.0),
        ("1998-07-14", "1998-07-14 ", 1.0),
        ("1998-07-14.", "1998-07-14", 0.0),
        ("Yes", "yes", 0.0),
        ("a  b", "a b", 0.0),
        ("", "a", 0.0),
    ],
)
def test_only_whitespace_around_an_answer_is_forgiven(
    given: str, expected: str, score: float
) -> None:
    assert exact_match(given, expected) == score


def test_perplexity_counts_every_token_once_whatever_its_item() -> None:
    found = Likelihoods(logprobs=(-1.0, -8.0), tokens=(1, 4))
    assert found.perplexity == pytest.approx(math.exp(9 / 5))
    assert found.per_item == pytest.approx((math.e, math.exp(2)))


def test_a_uniform_guess_has_the_vocabulary_as_its_perplexity() -> None:
    assert perplexity(7 * math.log(1 / 49152), 7) == pytest.approx(49152)


def test_a_hopeless_answer_does_not_overflow() -> None:
    assert perplexity(-1e6, 1) == math.exp(50)


def test_the_standard_error_of_a_mean_is_the_textbook_one() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert mean_stderr(values) == pytest.approx(stats.sem(values))


def test_the_standard_error_of_perplexity_agrees_with_a_bootstrap() -> None:
    source = np.random.RandomState(3)
    tokens = source.randint(3, 12, size=200)
    logprobs = -source.gamma(2.0, 0.3, size=200) * tokens
    found = Likelihoods(logprobs=tuple(logprobs), tokens=tuple(tokens))
    resampled = stats.bootstrap(
        (logprobs, tokens),
        lambda lp, t, axis: np.exp(-lp.sum(axis=axis) / t.sum(axis=axis)),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
        method="percentile",
    )
    assert found.stderr == pytest.approx(resampled.standard_error, rel=0.1)


def test_one_item_has_no_standard_error() -> None:
    assert math.isnan(mean_stderr([1.0]))
    assert math.isnan(Likelihoods(logprobs=(-1.0,), tokens=(2,)).stderr)
