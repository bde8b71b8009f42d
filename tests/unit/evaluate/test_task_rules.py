"""What no engine should be asked: tasks whose kind, items and metrics do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapterhub.domain.evaluation import Item, Message, TaskData
from adapterhub.evaluate.tasks.rules import metrics_of, task_fault

ASKED = (Message(role="user", content="q"),)
ITEM = Item(messages=ASKED, answer="1")
PAIR = Item(messages=ASKED, answer="1", choices=("1", "2"))
TASK = TaskData(name="t", items=(ITEM,), digest="d")
CHOICE = replace(TASK, kind="choice", metrics=("acc",), items=(PAIR,))


def test_the_usual_tasks_are_fine() -> None:
    assert task_fault(TASK) is None
    assert task_fault(CHOICE) is None
    assert task_fault(replace(TASK, metrics=("regex",), pattern="(a)")) is None
    assert task_fault(replace(TASK, metrics=("json_equal",))) is None
    raw: dict[str, Any] = {"kind": "likelihood", "chat": False, "metrics": ("perplexity",)}
    assert task_fault(replace(TASK, items=(Item(messages=(), answer="x"),), **raw)) is None


def test_written_answers_have_likelihoods_too_and_choices_have_none() -> None:
    assert {"exact_match", "bleu", "perplexity"} <= set(metrics_of("generate"))
    assert metrics_of("likelihood") == ("perplexity", "bits_per_byte")
    assert metrics_of("choice") == ("acc", "acc_norm", "acc_bytes")


@pytest.mark.parametrize(
    ("task", "change", "fault"),
    [
        (TASK, {"items": ()}, "has no items"),
        (TASK, {"metrics": ("speed",)}, "a metric that is not known"),
        (TASK, {"metrics": ()}, "is not measured by nothing"),
        (TASK, {"kind": "essay"}, "is of the kind 'essay'"),
        (TASK, {"metrics": ("acc",)}, "of the kind generate is not measured by acc"),
        (CHOICE, {"metrics": ("acc", "bleu")}, "of the kind choice is not measured by bleu"),
        (TASK, {"kind": "likelihood"}, "of the kind likelihood is not measured by exact_match"),
        (TASK, {"metrics": ("f1", "f1")}, "names the metric f1 twice"),
        (TASK, {"metrics": ("regex",)}, "has no pattern"),
        (TASK, {"pattern": "a"}, "no metric that reads it"),
        (TASK, {"metrics": ("regex",), "pattern": "(a"}, "missing )"),
        (TASK, {"max_new_tokens": 0}, "lets answers have 0 tokens"),
        (TASK, {"stop": ("",)}, "stops at an empty text"),
        (TASK, {"items": (ITEM, replace(ITEM, answer=""))}, "an item 2 without an answer"),
        (TASK, {"items": (Item(messages=(), answer="x"),)}, "an item 1 without a question"),
        (CHOICE, {"items": (ITEM,)}, "without two choices"),
        (CHOICE, {"items": (replace(PAIR, right=2),)}, "one of them right"),
        (CHOICE, {"items": (replace(PAIR, choices=("1", "")),)}, "with an empty choice"),
        (TASK, {"chat": False, "items": (replace(ITEM, messages=ASKED * 2),)}, "a conversation"),
        (
            TASK,
            {"metrics": ("json_equal",), "items": (replace(ITEM, answer="{"),)},
            "whose answer is no JSON",
        ),
    ],
)
def test_what_does_not_fit_is_named(task: TaskData, change: dict[str, Any], fault: str) -> None:
    found = task_fault(replace(task, **change))
    assert found is not None
    assert fault in found[0]
    assert found[1]
