"""Weights are searched on some rows and taken only if others agree.

The engine here finds answers as likely as its own formula has it: no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapterhub.domain.engines import GenerateRequest, Generation, Score, ScoreRequest
from adapterhub.domain.evaluation import Item, Message
from adapterhub.errors import MismatchError, UsageError

pytest.importorskip("torch")

from adapterhub.evaluate.weight_search import Found, search, split_rows

pytestmark = pytest.mark.models

START = (("one", 1.0), ("two", 1.0))


@dataclass
class FormulaEngine:
    """`loss` of the weights (0 for one that takes no part) and of the row's number."""

    loss: Callable[[float, float, int], float]
    base: Any = None
    asked: list[ScoreRequest] = field(default_factory=list)

    def generate(
        self, requests: Sequence[GenerateRequest], *, on_text: Any = None, on_done: Any = None
    ) -> list[Generation]:
        raise AssertionError("nothing is generated here")

    def score(self, requests: Sequence[ScoreRequest], *, on_done: Any = None) -> list[Score]:
        self.asked += requests
        made = []
        for request in requests:
            weights = {s: w for s, w in request.slots if isinstance(w, float)}
            number = int(request.messages[0].content)
            loss = self.loss(weights.get("one", 0.0), weights.get("two", 0.0), number)
            made.append(Score(logprobs=(-2 * loss, 0.0), token_ids=(1, 2)))
        return made


def items(count: int) -> list[Item]:
    return [
        Item(messages=(Message(role="user", content=str(n)),), answer="a") for n in range(count)
    ]


def searched(loss: Callable[[float, float, int], float], *, trials: int = 40) -> Found:
    rows = split_rows(items(40), limit=40, name="rows.jsonl")
    return search(FormulaEngine(loss), START, rows, trials=trials)


def bowl(one: float, two: float, number: int) -> float:
    return 1 + number / 100 + (1 + number / 40) * ((one - 0.5) ** 2 + (two - 1.4) ** 2)


def test_weights_that_help_on_other_rows_too_are_taken() -> None:
    found = searched(bowl)
    assert found.start.point == (1.0, 1.0)
    assert found.weights == found.best.point == pytest.approx((0.5, 1.4), abs=0.05)
    assert found.best.value < found.start.value
    assert found.judged[0] - found.judged[1] == pytest.approx(found.gain.delta)
    assert found.holds
    assert found.to_json()["taken"]
    assert len(found.trials) <= 40


def test_weights_that_help_only_where_they_were_searched_are_left() -> None:
    engine = FormulaEngine(lambda one, two, number: 0.0)
    rows = split_rows(items(40), limit=40, name="rows.jsonl")
    seen = {int(item.messages[0].content) for item in rows.searched}
    # On the other rows it is as often better as worse.
    engine.loss = lambda one, two, number: (
        1 + one * (1.0 if number in seen else (number % 7 - 3) / 5)
    )
    found = search(engine, START, rows, trials=20)
    assert found.best.value < found.start.value
    assert not found.holds
    assert found.weights == (1.0, 1.0)
    assert found.to_json()["weights"] == [1.0, 1.0]


def test_one_that_only_harms_gets_no_part_in_the_request() -> None:
    engine = FormulaEngine(lambda one, two, number: 1 + number / 50 + one + (two - 1) ** 2)
    rows = split_rows(items(20), limit=20, name="rows.jsonl")
    found = search(engine, START, rows, trials=60)
    assert found.best.point == pytest.approx((0.0, 1.0), abs=0.02)
    assert found.best.point[0] == 0.0
    assert all(weight for request in engine.asked for _, weight in request.slots)


def test_weights_that_overflow_are_passed_by() -> None:
    def torn(one: float, two: float, number: int) -> float:
        return math.inf if two > 1.1 else bowl(one, two, number)

    found = searched(torn)
    assert found.best.point[1] <= 1.1
    assert None in [trial["loss"] for trial in found.to_json()["trials"]]


def test_weights_to_begin_with_that_overflow_are_an_error() -> None:
    with pytest.raises(MismatchError, match="not finite"):
        searched(lambda one, two, number: math.nan, trials=3)


def test_weights_beyond_the_usual_bounds_may_begin() -> None:
    rows = split_rows(items(8), limit=8, name="rows.jsonl")
    found = search(FormulaEngine(bowl), (("one", 3.0), ("two", -1.0)), rows, trials=5)
    assert found.start.point == (3.0, -1.0)


def test_no_conversation_is_on_both_sides() -> None:
    rows = split_rows([*items(9), *items(9)], limit=100, name="rows.jsonl")
    assert len(rows.searched) + len(rows.judging) == 9
    assert not set(rows.searched) & set(rows.judging)
    assert rows == split_rows(items(9), limit=100, name="rows.jsonl")
    assert rows.sha256 != split_rows(items(9), limit=6, name="rows.jsonl").sha256


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 rows of rows\.jsonl are too few"):
        split_rows(items(3), limit=50, name="rows.jsonl")
