"""BLEU and chrF: sacrebleu counts n-grams segment by segment, and their sum is scored here.

sacrebleu scores one sum at a time; here ten thousand resampled ones are scored at once, by the same
formulas. Tests hold both to sacrebleu's own command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapterhub.evaluate.metrics import Array, Reply

_ORDERS = 4  # BLEU's longest n-gram
_BETA = 2  # chrF's weight of recall


def bleu_statistics(replies: Sequence[Reply], _task: object) -> Array:
    """(items, 10): words written, words expected, n-grams of 1 to 4 words that match, and all."""
    return _counted(_bleu(), replies)


def chrf_statistics(replies: Sequence[Reply], _task: object) -> Array:
    """(items, 18): for 1 to 6 letters, n-grams written, expected, and in both."""
    return _counted(_chrf(), replies)


def bleu_signature() -> str:
    return _signature(_bleu())


def chrf_signature() -> str:
    return _signature(_chrf())


def bleu_score(totals: Array) -> Array:
    """0 to 100, with sacrebleu's default smoothing (`exp`: the k-th order without a match counts
    as 1/2^k matches) and brevity penalty."""
    written, expected = totals[..., 0], totals[..., 1]
    matched, counted = totals[..., 2 : 2 + _ORDERS], totals[..., 2 + _ORDERS :]
    misses = np.cumsum((matched == 0) & (counted > 0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(matched > 0, matched, 0.5**misses) / counted
        brevity = np.exp(np.minimum(0.0, 1 - expected / written))
        found = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
    # An order that the answers are too short for, or no match at all, is a score of 0.
    good: Array = np.where((counted > 0).all(axis=-1) & matched.any(axis=-1), found, 0.0)
    return good


def chrf_score(totals: Array) -> Array:
    """0 to 100: F2 of precision and recall, each averaged over the orders that both texts have."""
    written, expected, matched = (totals[..., i::3] for i in range(3))
    both = (written > 0) & (expected > 0)
    orders = both.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(both, matched / written, 0.0).sum(axis=-1) / orders
        recall = np.where(both, matched / expected, 0.0).sum(axis=-1) / orders
        found = (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)
    good: Array = np.where(matched.any(axis=-1), 100 * found, 0.0)
    return good


def _counted(metric: Any, replies: Sequence[Reply]) -> Array:
    given = [reply.text or "" for reply in replies]
    expected = [reply.item.answer for reply in replies]
    # What sacrebleu's own resampling reads; there is no public name for it.
    counts = metric._extract_corpus_statistics(given, [expected])
    return np.array(counts, dtype=np.float64)


def _signature(metric: Any) -> str:
    metric.corpus_score(["a"], [["a"]])  # it knows of its references only once it was used
    return str(metric.get_signature())


def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(force=True)  # what looks tokenized is scored like anything else, without a warning


def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
