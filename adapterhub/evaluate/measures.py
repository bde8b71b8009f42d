"""Which metrics there are: a table from name to measure.

Knows what each reads, how it is shown and which way is better; no engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from adapterhub.domain.evaluation import Metric, TaskData
from adapterhub.evaluate import text_metrics, translation_metrics
from adapterhub.evaluate.metrics import (
    Array,
    Measure,
    Reply,
    averaged,
    exact_match,
    exp_ratio,
    mean,
    ratio,
)


def _compared(score: Callable[[str, str], float]) -> Callable[[Sequence[Reply], TaskData], Array]:
    """The mean of a score of two texts."""

    def statistics(replies: Sequence[Reply], task: TaskData) -> Array:
        return averaged([score(reply.text or "", reply.item.answer) for reply in replies])

    return statistics


def _regex(replies: Sequence[Reply], task: TaskData) -> Array:
    pattern = task.pattern or ""
    found = [text_metrics.found_by(pattern, r.text or "", r.item.answer) for r in replies]
    return averaged(found)


def _nats(replies: Sequence[Reply], task: TaskData) -> Array:
    """(items, 2): nats and tokens of the expected answer."""
    return np.array([(-math.fsum(r.logprobs), len(r.logprobs)) for r in replies])


def _bits(replies: Sequence[Reply], task: TaskData) -> Array:
    """(items, 2): bits and UTF-8 bytes of the expected answer alone: no end of a turn."""
    last = -1 if task.chat else None
    return np.array(
        [
            (-math.fsum(reply.logprobs[:last]) / math.log(2), len(reply.item.answer.encode()))
            for reply in replies
        ]
    )


def _chosen(size: Callable[[str], int]) -> Callable[[Sequence[Reply], TaskData], Array]:
    """Whether the right choice is the likeliest for its size; of equal ones the first is taken, as
    in lm-evaluation-harness."""

    def right(reply: Reply) -> float:
        pairs = zip(reply.choices, reply.item.choices, strict=True)
        values = [logprob / size(text) for logprob, text in pairs]
        return float(values.index(max(values)) == reply.item.right)

    def statistics(replies: Sequence[Reply], task: TaskData) -> Array:
        return averaged([right(reply) for reply in replies])

    return statistics


def _written(name: Metric, heading: str, score: Callable[[str, str], float]) -> Measure:
    return Measure(
        name=name, heading=heading, reads="text", statistics=_compared(score), score=mean
    )


def _choice(name: Metric, heading: str, size: Callable[[str], int]) -> Measure:
    return Measure(
        name=name, heading=heading, reads="choices", statistics=_chosen(size), score=mean
    )


_ALL = (
    _written("exact_match", "exact match, % of items", exact_match),
    Measure(
        name="regex",
        heading="found by the task's pattern, % of items",
        reads="text",
        statistics=_regex,
        score=mean,
    ),
    _written("json_equal", "equal as JSON, % of items", text_metrics.json_equal),
    _written("f1", "F1 of words, %", text_metrics.f1),
    _written("rouge1", "ROUGE-1 F, %", partial(text_metrics.rouge_n, n=1)),
    _written("rouge2", "ROUGE-2 F, %", partial(text_metrics.rouge_n, n=2)),
    _written("rougeL", "ROUGE-L F, %", text_metrics.rouge_l),
    Measure(
        name="chrf",
        heading="chrF, 0 to 100",
        reads="text",
        statistics=translation_metrics.chrf_statistics,
        score=translation_metrics.chrf_score,
        shown="points",
        signature=translation_metrics.chrf_signature,
    ),
    Measure(
        name="bleu",
        heading="BLEU, 0 to 100",
        reads="text",
        statistics=translation_metrics.bleu_statistics,
        score=translation_metrics.bleu_score,
        shown="points",
        signature=translation_metrics.bleu_signature,
    ),
    Measure(
        name="perplexity",
        heading="perplexity of the answers",
        reads="likelihood",
        statistics=_nats,
        score=exp_ratio,
        lower_is_better=True,
        shown="plain",
        decimals=2,
    ),
    Measure(
        name="bits_per_byte",
        heading="bits per byte of the answers",
        reads="likelihood",
        statistics=_bits,
        score=ratio,
        lower_is_better=True,
        shown="plain",
        decimals=3,
    ),
    _choice("acc", "likeliest choice, % of items", lambda text: 1),
    _choice("acc_norm", "likeliest choice for its letters, % of items", len),
    _choice(
        "acc_bytes", "likeliest choice for its bytes, % of items", lambda text: len(text.encode())
    ),
)
MEASURES: dict[Metric, Measure] = {measure.name: measure for measure in _ALL}
