"""BLEU and chrF are those of sacrebleu: its command's, and its own formulas on any counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from adapterhub.domain.evaluation import Item, Metric, TaskData
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Reply

METRICS: tuple[Metric, ...] = ("bleu", "chrf")
TASK = TaskData(name="t", items=(), digest="d", metrics=METRICS)
PAIRS = [
    ("The cat sat on the mat.", "The cat is on the mat."),
    ("It is a guide to action that ensures.", "It is a guide to action which ensures that!"),
    ("", "Nothing was said."),
    ("무두류는 머리가 없다.", "무두류에는 머리가 없다."),
    ("a", "a b c d e f"),
    ("Wholly other words", "nothing in common, 3.14 &quot; here"),
    ("This is tokenized already .", "This is tokenized already."),
]


def replies(pairs: list[tuple[str, str]]) -> list[Reply]:
    return [Reply(item=Item(messages=(), answer=e), text=g) for g, e in pairs]


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[:1], PAIRS[4:6]])
def test_scores_and_signatures_are_those_of_the_command(
    tmp_path: Path, pairs: list[tuple[str, str]]
) -> None:
    for name, column in (("given", 0), ("expected", 1)):
        text = "".join(f"{pair[column]}\n" for pair in pairs)
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = [str(tmp_path / "expected"), "-i", str(tmp_path / "given")]
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *files, "-m", "bleu", "chrf", "-w", "12"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    for metric, command in zip(METRICS, said, strict=True):
        measure = MEASURES[metric]
        found = measure.total(measure.statistics(replies(pairs), TASK))
        assert found == pytest.approx(command["score"], abs=1e-9)
        assert measure.signature is not None
        assert measure.signature() == command["signature"]


@pytest.mark.parametrize(("metric", "library"), [("bleu", BLEU), ("chrf", CHRF)])
def test_many_sums_at_once_are_scored_as_sacrebleu_scores_each(
    metric: Metric, library: type[BLEU | CHRF]
) -> None:
    measure, theirs = MEASURES[metric], library()
    statistics = measure.statistics(replies(PAIRS), TASK)
    counts = np.random.RandomState(0).randint(0, 3, size=(200, len(PAIRS)))
    totals = counts @ statistics
    expected = [theirs._compute_score_from_stats(row.astype(int).tolist()).score for row in totals]
    assert measure.score(totals) == pytest.approx(expected, abs=1e-9)
    assert measure.per_item(statistics) == pytest.approx(
        [theirs._compute_score_from_stats(row.astype(int).tolist()).score for row in statistics]
    )


@pytest.mark.parametrize("metric", METRICS)
def test_its_standard_error_is_that_of_a_bootstrap(metric: Metric) -> None:
    measure, source = MEASURES[metric], np.random.RandomState(1)
    words = [f"word{n}" for n in range(30)]
    pairs = []
    for _ in range(120):
        expected = source.choice(words, size=source.randint(6, 15)).tolist()
        given = [word if source.rand() < 0.7 else "wrong" for word in expected]
        pairs.append((" ".join(given), " ".join(expected)))
    statistics = measure.statistics(replies(pairs), TASK)
    picks = source.randint(0, 120, size=(2000, 120))
    resampled = measure.score(statistics[picks].sum(axis=1))
    assert measure.stderr(statistics) == pytest.approx(resampled.std(ddof=1), rel=0.1)
