"""Metrics: what counts as right, one array behind every figure, and standard errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from adapterhub.domain.evaluation import METRICS, Item, Message, Metric, TaskData
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Array, Reply, averaged, exact_match, perplexity

PERPLEXITY = MEASURES["perplexity"]


def task(metric: Metric, **more: Any) -> TaskData:
    return TaskData(name="t", items=(), digest="d", metrics=(metric,), **more)


def item(answer: str = "a", **more: Any) -> Item:
    return Item(messages=(Message(role="user", content="q"),), answer=answer, **more)


def measured(metric: Metric, *replies: Reply, **more: Any) -> Array:
    return MEASURES[metric].statistics(replies, task(metric, **more))


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


def test_every_metric_has_a_measure_of_its_name() -> None:
    assert tuple(MEASURES) == METRICS
    assert all(name == measure.name for name, measure in MEASURES.items())


# --- likelihoods ------------------------------------------------------------------------------


def test_perplexity_counts_every_token_once_whatever_its_item() -> None:
    found = measured(
        "perplexity",
        Reply(item=item(), logprobs=(-1.0,)),
        Reply(item=item(), logprobs=(-2.0, -2.0, -2.0, -2.0)),
    )
    assert PERPLEXITY.total(found) == pytest.approx(math.exp(9 / 5))
    assert PERPLEXITY.per_item(found) == pytest.approx((math.e, math.exp(2)))


def test_a_uniform_guess_has_the_vocabulary_as_its_perplexity() -> None:
    assert perplexity(7 * math.log(1 / 49152), 7) == pytest.approx(49152)


def test_a_hopeless_answer_does_not_overflow() -> None:
    assert perplexity(-1e6, 1) == math.exp(50)
    assert PERPLEXITY.total(np.array([(1e6, 1.0)])) == math.exp(50)


def test_bits_per_byte_leave_the_end_of_a_turn_out() -> None:
    reply = Reply(item=item("né"), logprobs=(-math.log(2), -math.log(4), -5.0))
    chat, raw = (measured("bits_per_byte", reply, chat=chat) for chat in (True, False))
    assert MEASURES["bits_per_byte"].total(chat) == pytest.approx((1 + 2) / 3)
    assert MEASURES["bits_per_byte"].total(raw) == pytest.approx((3 + 5 / math.log(2)) / 3)


# --- choices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "logprobs", "right", "scores"),
    [
        (("no", "certainly"), (-2.0, -3.0), 0, (1, 0, 0)),
        (("no", "certainly"), (-2.0, -3.0), 1, (0, 1, 1)),
        (("abc", "ééé"), (-2.0, -3.0), 1, (0, 0, 1)),  # 2/3 < 1, but 2/3 > 3/6
        (("ab", "cd"), (-2.0, -2.0), 0, (1, 1, 1)),  # the first of equals
        (("ab", "cd"), (-2.0, -2.0), 1, (0, 0, 0)),
    ],
)
def test_a_choice_is_right_by_its_sum_by_letter_or_by_byte(
    choices: tuple[str, ...],
    logprobs: tuple[float, ...],
    right: int,
    scores: tuple[float, float, float],
) -> None:
    reply = Reply(item=item(choices=choices, right=right), choices=logprobs)
    metrics: tuple[Metric, ...] = ("acc", "acc_norm", "acc_bytes")
    assert tuple(MEASURES[m].total(measured(m, reply)) for m in metrics) == scores


# --- standard errors --------------------------------------------------------------------------


def test_the_standard_error_of_a_mean_is_the_textbook_one() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert MEASURES["exact_match"].stderr(averaged(values)) == pytest.approx(stats.sem(values))
    assert MEASURES["f1"].stderr(averaged([0.1] * 7)) == 0.0


def test_the_standard_error_of_perplexity_agrees_with_a_bootstrap() -> None:
    source = np.random.RandomState(3)
    tokens = source.randint(3, 12, size=200)
    nats = source.gamma(2.0, 0.3, size=200) * tokens
    resampled = stats.bootstrap(
        (nats, tokens),
        lambda lp, t, axis: np.exp(lp.sum(axis=axis) / t.sum(axis=axis)),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
        method="percentile",
    )
    found = PERPLEXITY.stderr(np.column_stack((nats, tokens)))
    assert found == pytest.approx(resampled.standard_error, rel=0.1)


def test_the_standard_error_of_perplexity_agrees_with_the_delta_method() -> None:
    source = np.random.RandomState(4)
    tokens = source.randint(3, 12, size=400).astype(float)
    nats = source.gamma(2.0, 0.3, size=400) * tokens
    mean = nats.sum() / tokens.sum()
    spread = math.sqrt(400 / 399 * ((nats - mean * tokens) ** 2).sum()) / tokens.sum()
    found = PERPLEXITY.stderr(np.column_stack((nats, tokens)))
    assert found == pytest.approx(math.exp(mean) * spread, rel=0.01)


def test_one_item_has_no_standard_error() -> None:
    assert math.isnan(MEASURES["exact_match"].stderr(averaged([1.0])))
    assert math.isnan(PERPLEXITY.stderr(np.array([(1.0, 2.0)])))
