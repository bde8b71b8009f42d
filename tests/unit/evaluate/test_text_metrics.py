"""Texts against texts: patterns, JSON, bags of words and ROUGE, each to its definition."""

from __future__ import annotations

import random
import time

import pytest

from adapterhub.errors import DataError
from adapterhub.evaluate import text_metrics
from adapterhub.evaluate.text_metrics import (
    f1,
    found_by,
    json_equal,
    longest_common,
    pattern_fault,
    rouge_l,
    rouge_n,
)

# --- patterns ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "given", "expected", "score"),
    [
        (r"answer is (\w)", "So the answer is B, because", "B", 1.0),
        (r"answer is (\w)", "So the answer is C, because", "B", 0.0),
        (r"\d+", "first 12, then 13", "12", 1.0),
        (r"\d+", "first 12, then 13", "13", 0.0),
        (r"(?s).*####(.*)", "1+1\n#### 1\n#### 42 ", "42", 1.0),
        (r"a(b)?", "a", "b", 0.0),
        (r"\d+", "none", "none", 0.0),
    ],
)
def test_the_first_match_or_its_first_group_is_the_answer(
    pattern: str, given: str, expected: str, score: float
) -> None:
    assert found_by(pattern, given, expected) == score


def test_a_pattern_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_metrics, "PATTERN_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"takes over 0\.2 s") as caught:
        found_by(r"(a|aa)+$", "a" * 100 + "b", "a")
    assert time.monotonic() - started < 3
    assert "repeat inside a repeat" in (caught.value.hint or "")


def test_what_is_no_pattern_says_why() -> None:
    assert pattern_fault(r"(\d+)") is None
    assert "missing )" in (pattern_fault(r"(\d+") or "")


# --- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "score"),
    [
        ('{"a": 1, "b": [true, null]}', 1.0),
        ('\n{"b":[true,null],"a":1.0} ', 1.0),
        ('{"a": 1, "b": [1, null]}', 0.0),
        ('{"a": true, "b": [true, null]}', 0.0),
        ('{"a": 1, "b": [null, true]}', 0.0),
        ('{"a": 1, "b": [true, null], "c": 0}', 0.0),
        ('{"a": 2, "a": 1, "b": [true, null]}', 0.0),
        ('{"a": 1, "b": [true, null]}.', 0.0),
        ('```json\n{"a": 1, "b": [true, null]}\n```', 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
        ("9" * 10_000, 0.0),
    ],
)
def test_json_is_equal_by_value(given: str, score: float) -> None:
    assert json_equal(given, '{"b": [true, null], "a": 1}') == score


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_never_equal(text: str) -> None:
    assert json_equal(text, text) == 0.0


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected", "score"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),
        ("in Paris, France", "Paris", 0.5),  # precision 1/3, recall 1
        ("a b b", "b b c", 0.8),  # "a" is an article: precision 1, recall 2/3
        ("U.S.A.", "USA", 1.0),
        ("theatre", "atre", 0.0),
        ("the", "a", 1.0),  # nothing is left of either
        ("the", "x", 0.0),
        ("서울", "서울 시", 2 / 3),
    ],
)
def test_f1_is_that_of_squad(given: str, expected: str, score: float) -> None:
    assert f1(given, expected) == pytest.approx(score)


# (written, expected, ROUGE-1, ROUGE-2, ROUGE-L): F-measures of the package rouge-score 0.1.2,
# use_stemmer=False.
ROUGE = [
    (
        "The quick brown fox jumps over the lazy dog",
        "The quick brown dog jumps on the log.",
        (0.705882352941, 0.266666666667, 0.588235294118),
    ),
    ("the cat sat on the mat", "on the mat the cat sat", (1.0, 0.8, 0.5)),
    ("a a a b", "a b a a a", (0.888888888889, 0.857142857143, 0.666666666667)),
    ("It's 3.14, isn't it?", "its 3 14 isn t it", (0.769230769231, 0.727272727273, 0.769230769231)),
    ("naïve café", "naive cafe", (0.0, 0.0, 0.0)),
    ("word", "word", (1.0, 0.0, 1.0)),
    ("", "anything", (0.0, 0.0, 0.0)),
    ("머리가 없다", "머리가 없다", (0.0, 0.0, 0.0)),
    ("İstanbul is big", "istanbul is big", (0.571428571429, 0.4, 0.571428571429)),
]


@pytest.mark.parametrize(("given", "expected", "scores"), ROUGE)
def test_rouge_is_that_of_rouge_score(
    given: str, expected: str, scores: tuple[float, float, float]
) -> None:
    found = (rouge_n(given, expected, 1), rouge_n(given, expected, 2), rouge_l(given, expected))
    assert found == pytest.approx(scores, abs=1e-11)


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    source = random.Random(0)
    for _ in range(200):
        one, other = (source.choices("abc", k=source.randint(0, 90)) for _ in range(2))
        table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, left in enumerate(one, start=1):
            for j, right in enumerate(other, start=1):
                shorter = max(table[i - 1][j], table[i][j - 1])
                table[i][j] = table[i - 1][j - 1] + 1 if left == right else shorter
        assert longest_common(one, other) == table[-1][-1]
