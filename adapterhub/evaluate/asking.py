"""Ask an engine what the metrics of a task read: written answers, log-probabilities, choices.

Knows requests and replies; scores nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from adapterhub.domain.engines import Engine, GenerateRequest, Score, ScoreRequest, Slots
from adapterhub.domain.evaluation import Item, TaskData
from adapterhub.errors import MismatchError
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Reply

More = Callable[[int], None]


def wanted(task: TaskData) -> set[Literal["text", "likelihood", "choices"]]:
    """What its metrics read."""
    return {MEASURES[metric].reads for metric in task.metrics}


def requests_of(task: TaskData) -> int:
    """How many one subject is sent."""
    reads = wanted(task)
    each = ("text" in reads) + ("likelihood" in reads)
    choices = sum(len(item.choices) for item in task.items) if "choices" in reads else 0
    return each * len(task.items) + choices


def ask(
    engine: Engine,
    name: str,
    each: Sequence[Slots],
    task: TaskData,
    more: More,
    *,
    sequential: bool = False,
) -> tuple[Reply, ...]:
    """One reply per item, by the slots of `each`. Raises MismatchError when log-probabilities are
    not finite."""
    reads, items = wanted(task), task.items
    texts: Sequence[str | None] = [None] * len(items)
    logprobs: Sequence[tuple[float, ...]] = [()] * len(items)
    choices: Sequence[tuple[float, ...]] = [()] * len(items)
    if "text" in reads:
        texts = _texts(engine, each, task, more, sequential=sequential)
    if "likelihood" in reads:
        asked = [(item, own, item.answer) for item, own in zip(items, each, strict=True)]
        scores = _scores(engine, task, asked, more, sequential=sequential)
        logprobs = [score.logprobs for score in scores]
    if "choices" in reads:
        # Neighbours, so that those of one item, nearly of one length, share a batch.
        asked = [
            (item, own, text)
            for item, own in zip(items, each, strict=True)
            for text in item.choices
        ]
        scores = _scores(engine, task, asked, more, sequential=sequential)
        last = -1 if task.chat else None  # whoever chooses a letter has not ended a turn
        found = iter(math.fsum(score.logprobs[:last]) for score in scores)
        choices = [tuple(next(found) for _ in item.choices) for item in items]
    replies = tuple(
        Reply(item=item, text=text, logprobs=likely, choices=chosen)
        for item, text, likely, chosen in zip(items, texts, logprobs, choices, strict=True)
    )
    _check_finite(replies, name, task)
    return replies


def _texts(
    engine: Engine, each: Sequence[Slots], task: TaskData, more: More, *, sequential: bool
) -> list[str]:
    requests = [
        GenerateRequest(
            messages=item.messages,
            slots=slots,
            sequential=sequential,
            max_new_tokens=task.max_new_tokens,
            chat=task.chat,
        )
        for item, slots in zip(task.items, each, strict=True)
    ]
    return [cut(made.text, task.stop) for made in engine.generate(requests, on_done=more)]


def cut(text: str, stop: Sequence[str]) -> str:
    """What stands before the first of the stops."""
    found = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(found)] if found else text


def _scores(
    engine: Engine,
    task: TaskData,
    asked: Sequence[tuple[Item, Slots, str]],
    more: More,
    *,
    sequential: bool,
) -> list[Score]:
    between = "" if task.chat else task.separator
    requests = [
        ScoreRequest(
            messages=item.messages,
            answer=f"{between}{answer}" if item.messages else answer,
            slots=slots,
            sequential=sequential,
            chat=task.chat,
        )
        for item, slots, answer in asked
    ]
    return engine.score(requests, on_done=more)


def _check_finite(replies: Sequence[Reply], name: str, task: TaskData) -> None:
    for number, reply in enumerate(replies, start=1):
        if not all(map(math.isfinite, (*reply.logprobs, *reply.choices))):
            raise MismatchError(
                f"{name} gives log-probabilities that are not finite on item {number} of "
                f"{task.name}",
                hint="`adapterhub verify` checks its weights; they may overflow on this base",
            )
