"""Whether a task can be measured at all, whoever made it.

Knows what its kind, its items and its metrics ask of each other; nobody has answered yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub.domain.evaluation import METRICS, USUAL_METRICS, Item, Kind, Metric, TaskData
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.text_metrics import parse_json, pattern_fault

Fault = tuple[str, str]  # what is wrong, as the rest of "the task NAME ..."; and the next move
_READ = {
    "generate": {"text", "likelihood"},
    "likelihood": {"likelihood"},
    "choice": {"choices"},
}


def metrics_of(kind: Kind) -> tuple[Metric, ...]:
    """Those that a task of this kind may be measured by."""
    return tuple(metric for metric in METRICS if MEASURES[metric].reads in _READ[kind])


def task_fault(task: TaskData) -> Fault | None:
    """The first thing that keeps it from being measured."""
    return next(_faults(task), None)


def _faults(task: TaskData) -> Iterator[Fault]:
    if not task.items or not set(task.metrics) <= set(METRICS):
        yield (
            "has no items, or a metric that is not known",
            f"metrics: {', '.join(METRICS)}",
        )
        return
    if task.kind not in USUAL_METRICS:
        yield f"is of the kind {task.kind!r}", f"kinds: {', '.join(USUAL_METRICS)}"
        return
    possible = metrics_of(task.kind)
    wrong = next((metric for metric in task.metrics if metric not in possible), None)
    if wrong or not task.metrics:
        yield (
            f"of the kind {task.kind} is not measured by {wrong or 'nothing'}",
            f"metrics of a {task.kind} task: {', '.join(possible)}",
        )
    repeated = next((m for m in task.metrics if task.metrics.count(m) > 1), None)
    if repeated:
        yield f"names the metric {repeated} twice", "name it once"
    yield from _pattern_faults(task)
    if task.max_new_tokens < 1:
        yield f"lets answers have {task.max_new_tokens} tokens", "max_new_tokens is at least 1"
    if "" in task.stop:
        yield "stops at an empty text", "leave it out of `stop`"
    for number, item in enumerate(task.items, start=1):
        for fault in _item_faults(task, item):
            yield f"has an item {number} {fault}", "correct its row"


def _pattern_faults(task: TaskData) -> Iterator[Fault]:
    if "regex" in task.metrics and task.pattern is None:
        yield (
            "is measured by regex and has no pattern",
            r"give one, such as pattern = 'answer is (\w+)'",
        )
    elif task.pattern is not None and "regex" not in task.metrics:
        yield "has a pattern and no metric that reads it", "add regex to its metrics"
    elif task.pattern is not None and (reason := pattern_fault(task.pattern)):
        yield f"has the pattern {task.pattern!r}, which is none: {reason}", "correct it"


def _item_faults(task: TaskData, item: Item) -> Iterator[str]:
    if task.kind == "choice":
        if len(item.choices) < 2 or not 0 <= item.right < len(item.choices):
            yield "without two choices, one of them right"
        if "" in item.choices:
            yield "with an empty choice"
    elif not item.answer:
        yield "without an answer"
    if not task.chat and (len(item.messages) > 1 or any(m.role != "user" for m in item.messages)):
        yield "with a conversation, where raw text is read"
    if not item.messages and (task.chat or task.kind == "generate"):
        yield "without a question"
    if "json_equal" in task.metrics:
        try:
            parse_json(item.answer)
        except (ValueError, RecursionError):
            yield "whose answer is no JSON"
