"""Paired intervals: right against scipy, covering as promised, honest at the edges."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from scipy import stats

from adapterhub.evaluate import compare
from adapterhub.evaluate.compare import (
    Difference,
    difference,
    mean_difference,
    paired_proportions,
)
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Array, averaged

PERPLEXITY = MEASURES["perplexity"]


def _nats(source: np.random.RandomState, tokens: Array, scale: float) -> Array:
    """(items, 2): nats and tokens."""
    return np.column_stack((source.gamma(3.0, scale / 3.0, size=len(tokens)) * tokens, tokens))


def _coverage(n: int, up: float, down: float) -> float:
    """The exact chance that the interval holds up - down, summed over every possible outcome."""
    total = 0.0
    for gained, lost in itertools.product(range(n + 1), repeat=2):
        if gained + lost <= n:
            low, high = paired_proportions(gained, lost, n)
            if low <= up - down <= high:
                counts = [gained, lost, n - gained - lost]
                total += stats.multinomial.pmf(counts, n, [up, down, 1 - up - down])
    return total


# --- right or wrong ---------------------------------------------------------------------------


def test_the_interval_for_proportions_is_the_published_formula() -> None:
    # Written out by hand from Bonett and Price, equation 5, with 12 gained and 4 lost of 60.
    up, down = 13 / 62, 5 / 62
    half = stats.norm.ppf(0.975) * ((up + down - (up - down) ** 2) / 62) ** 0.5
    assert paired_proportions(12, 4, 60) == pytest.approx((up - down - half, up - down + half))


def test_forty_wins_in_forty_do_not_claim_certainty() -> None:
    found = mean_difference([1.0] * 40, [0.0] * 40)
    assert found.delta == 1.0
    assert found.ci95 is not None
    assert found.ci95 == pytest.approx((0.860, 1.0), abs=0.001)
    assert found.separable


def test_no_difference_in_forty_still_leaves_room_for_one() -> None:
    found = mean_difference([0.0] * 40, [0.0] * 40)
    assert found.delta == 0.0
    assert found.ci95 is not None
    assert found.ci95[0] < -0.05 < 0.05 < found.ci95[1]
    assert not found.separable


def test_a_single_item_proves_nothing() -> None:
    assert not mean_difference([1.0], [0.0]).separable


def test_items_that_both_get_right_are_not_evidence() -> None:
    assert mean_difference([1.0] * 40, [1.0] * 40) == mean_difference([0.0] * 40, [0.0] * 40)


def test_swapping_the_two_turns_the_interval_round() -> None:
    low, high = paired_proportions(9, 2, 50)
    assert paired_proportions(2, 9, 50) == pytest.approx((-high, -low))


@pytest.mark.parametrize("n", [10, 25])
@pytest.mark.parametrize(
    ("up", "down"), [(0.01, 0.01), (0.1, 0.1), (0.3, 0.3), (0.3, 0.05), (0.9, 0.05), (0.98, 0.0)]
)
def test_the_interval_for_proportions_covers_nearly_always(n: int, up: float, down: float) -> None:
    assert _coverage(n, up, down) >= 0.92


@pytest.mark.long
@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_the_interval_for_proportions_covers_over_the_whole_simplex(n: int) -> None:
    source = np.random.RandomState(0)
    found = [_coverage(n, up, down) for up, down, _ in source.dirichlet([0.5, 0.5, 0.7], size=40)]
    assert min(found) >= 0.90
    assert np.mean(found) >= 0.945


# --- everything else --------------------------------------------------------------------------


def test_the_bootstrap_of_a_mean_agrees_with_the_paired_t_interval() -> None:
    source = np.random.RandomState(5)
    base = source.normal(0.5, 0.2, size=40)
    adapter = base + source.normal(0.1, 0.1, size=40)
    found = mean_difference(list(adapter), list(base))
    expected = stats.ttest_rel(adapter, base).confidence_interval(0.95)
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=0.004)


def test_the_bootstrap_of_perplexity_agrees_with_scipy() -> None:
    source = np.random.RandomState(6)
    tokens = source.randint(4, 15, size=200).astype(float)
    base, adapter = (_nats(source, tokens, scale) for scale in (1.0, 0.6))
    found = difference(PERPLEXITY, adapter, base)
    expected = stats.bootstrap(
        (adapter[:, 0], base[:, 0], tokens),
        lambda a, b, t, axis: (
            np.exp(a.sum(axis=axis) / t.sum(axis=axis))
            - np.exp(b.sum(axis=axis) / t.sum(axis=axis))
        ),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.delta == pytest.approx(PERPLEXITY.total(adapter) - PERPLEXITY.total(base))
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=0.03)


def test_pairing_makes_a_small_steady_gain_visible() -> None:
    source = np.random.RandomState(7)
    tokens = source.randint(4, 15, size=50).astype(float)
    hard = source.gamma(2.0, 1.0, size=50) * tokens
    base = np.column_stack((hard, tokens))
    adapter = np.column_stack((hard * source.uniform(0.90, 0.99, size=50), tokens))
    assert difference(PERPLEXITY, adapter, base).separable
    assert PERPLEXITY.stderr(base) > abs(difference(PERPLEXITY, adapter, base).delta)


def test_the_same_numbers_give_the_same_interval() -> None:
    values, zeros = [0.1, 0.5, 0.4, 0.9], [0.0, 0.2, 0.1, 0.3]
    assert mean_difference(values, zeros) == mean_difference(values, zeros)


def test_resampling_in_parts_covers_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_CELLS", 64)
    parts = list(compare._resamples(7))
    assert sum(map(len, parts)) == compare.RESAMPLES
    assert {float(total) for part in parts for total in part.sum(axis=1)} == {7.0}


def test_an_adapter_that_changes_nothing_is_not_separable() -> None:
    same = np.array([(1.0, 2.0), (3.0, 3.0), (2.0, 2.0)])
    assert difference(PERPLEXITY, same, same) == Difference(0.0, (0.0, 0.0))
    assert not difference(PERPLEXITY, same, same).separable


def test_the_same_difference_everywhere_gives_no_interval() -> None:
    found = mean_difference([0.75, 0.75, 0.75], [0.5, 0.5, 0.5])
    assert found == Difference(0.25, None)
    assert not found.separable


def test_one_item_gives_perplexity_no_interval() -> None:
    one, other = (np.array([(nats, 2.0)]) for nats in (1.0, 2.0))
    assert difference(PERPLEXITY, one, other).ci95 is None


def test_the_same_difference_is_seen_through_rounding() -> None:
    tokens = np.array([3.0, 7.0, 11.0, 13.0])
    base, adapter = (np.column_stack((0.1 * scale * tokens, tokens)) for scale in (3, 2))
    assert difference(PERPLEXITY, adapter, base).ci95 is None
    assert mean_difference([0.3, 0.3, 0.3], [0.1, 0.1, 0.1]).ci95 is None


def test_right_or_wrong_gets_the_interval_for_proportions_by_whatever_metric() -> None:
    adapter, base = averaged([1.0] * 9 + [0.0]), averaged([0.0] * 10)
    for name in ("exact_match", "f1", "acc"):
        found = difference(MEASURES[name], adapter, base)
        assert found.ci95 == paired_proportions(9, 0, 10)


def test_a_thousand_items_are_resampled_in_a_moment() -> None:
    source = np.random.RandomState(0)
    ours, theirs = (source.randint(1, 20, size=(1000, 10)).astype(float) for _ in range(2))
    started = time.process_time()
    difference(MEASURES["bleu"], ours, theirs)
    assert time.process_time() - started < 3.0  # a few tenths where nothing else runs


@pytest.mark.parametrize("df", [2, 3, 5, 10, 49, 499])
def test_the_student_t_point_is_that_of_scipy(df: int) -> None:
    assert compare._student_t(df) == pytest.approx(stats.t.ppf(0.975, df), rel=0.01)


@pytest.mark.parametrize(
    "runs", [pytest.param(150, id="quick"), pytest.param(1500, id="long", marks=pytest.mark.long)]
)
def test_the_bootstrap_covers_the_true_difference_of_perplexities(runs: int) -> None:
    source = np.random.RandomState(8)
    # The items' nats are gamma with mean `scale` per token whatever the length, so this is exact.
    truth = np.exp(0.6) - np.exp(1.0)
    held = 0
    for _ in range(runs):
        tokens = source.randint(4, 15, size=50).astype(float)
        base, adapter = (_nats(source, tokens, scale) for scale in (1.0, 0.6))
        interval = difference(PERPLEXITY, adapter, base).ci95
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 0.90 <= held / runs <= 0.99
