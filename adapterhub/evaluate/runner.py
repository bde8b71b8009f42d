"""Ask the base and every adapter the same items and compare each adapter with the base.

Knows no file, no plugin and no screen; the engine already holds the adapters in their slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from adapterhub.domain.engines import Engine, Slots
from adapterhub.domain.evaluation import Metric, Row, TaskData
from adapterhub.errors import PluginError, UsageError
from adapterhub.evaluate.asking import ask, requests_of
from adapterhub.evaluate.compare import difference
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Array, Reply
from adapterhub.evaluate.result import Answer, Evaluation
from adapterhub.evaluate.tasks.rules import task_fault

# (items done, items in all, what is being asked)
Progress = Callable[[int, int, str], None]
# By (subject, task): the slots that answer each item, where they are not the same for all.
Choices = Mapping[tuple[str, str], Sequence[Slots]]


def evaluate(
    engine: Engine,
    subjects: Sequence[tuple[str, Slots]],
    tasks: Sequence[TaskData],
    *,
    sequential: Collection[str] = (),
    chosen: Choices = MappingProxyType({}),
    on_progress: Progress | None = None,
) -> Evaluation:
    """Measure the bare base first, then each (name, slots), on all items of all tasks. `sequential`
    names those whose adapters feed each other; who is in `chosen` answers each item with its own
    slots.

    Raises UsageError for subjects that cannot be told apart, PluginError for a task that cannot
    be measured, MismatchError when log-probabilities are not finite.
    """
    spec = engine.base.spec
    _check(spec.name, subjects, tasks)
    total = (1 + len(subjects)) * sum(map(requests_of, tasks))
    counter = _Counter(total=total, report=on_progress)

    def measured(name: str, slots: Slots, task: TaskData) -> _Measured:
        each = chosen.get((name, task.name)) or [slots] * len(task.items)
        return _measure(engine, name, each, task, counter, sequential=name in sequential)

    bare = [measured(spec.name, (), task) for task in tasks]
    adapted = [
        (measured(name, slots, task), base)
        for name, slots in subjects
        for task, base in zip(tasks, bare, strict=True)
    ]
    return Evaluation(
        base=spec,
        tasks=tuple(tasks),
        base_rows=tuple(row for found in bare for row in found.rows(None)),
        rows=tuple(row for found, base in adapted for row in found.rows(base)),
        answers=tuple(
            answer
            for found in [*bare, *(found for found, _ in adapted)]
            for answer in found.answers
        ),
    )


@dataclass(slots=True)
class _Counter:
    """Turns the engine's "so many more" into "so many of so many"."""

    total: int
    report: Progress | None
    done: int = 0

    def asking(self, what: str) -> Callable[[int], None]:
        def more(count: int) -> None:
            self.done += count
            if self.report is not None:
                self.report(self.done, self.total, what)

        return more


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    """One subject on one task: its replies, and by metric the statistics that they come to."""

    name: str
    task: TaskData
    replies: tuple[Reply, ...]
    statistics: Mapping[Metric, Array]

    def rows(self, base: _Measured | None) -> Iterator[Row]:
        """A row per metric, compared with the base unless this is the base."""
        for metric, own in self.statistics.items():
            measure = MEASURES[metric]
            versus = difference(measure, own, base.statistics[metric]) if base else None
            yield Row(
                adapter=self.name,
                task=self.task.name,
                metric=metric,
                score=measure.total(own),
                stderr=measure.stderr(own),
                n=len(own),
                delta=versus.delta if versus else None,
                ci95=versus.ci95 if versus else None,
                per_item=measure.per_item(own),
                signature=measure.signature() if measure.signature else None,
            )

    @property
    def answers(self) -> Iterator[Answer]:
        judge = next((m for m in self.task.metrics if MEASURES[m].reads != "likelihood"), None)
        scores = MEASURES[judge].per_item(self.statistics[judge]) if judge else ()
        for index, reply in enumerate(self.replies):
            item, chosen = reply.item, reply.choices
            yield Answer(
                adapter=self.name,
                task=self.task.name,
                item=index,
                question=item.messages[-1].content if item.messages else "",
                expected=item.answer,
                given=item.choices[chosen.index(max(chosen))] if chosen else reply.text,
                score=scores[index] if scores else None,
                logprob=_logprob(reply),
                tokens=len(reply.logprobs) or None,
            )


def _logprob(reply: Reply) -> float | None:
    if reply.choices:
        return reply.choices[reply.item.right]
    return math.fsum(reply.logprobs) if reply.logprobs else None


def _measure(
    engine: Engine,
    name: str,
    each: Sequence[Slots],
    task: TaskData,
    counter: _Counter,
    *,
    sequential: bool,
) -> _Measured:
    """`each` item is answered with slots of its own."""
    more = counter.asking(f"{name} on {task.name}")
    replies = ask(engine, name, each, task, more, sequential=sequential)
    statistics = {metric: MEASURES[metric].statistics(replies, task) for metric in task.metrics}
    return _Measured(name=name, task=task, replies=replies, statistics=statistics)


def _check(base: str, subjects: Sequence[tuple[str, Slots]], tasks: Sequence[TaskData]) -> None:
    names = [base, *(name for name, _ in subjects)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UsageError(f"{repeated} is to be measured twice", hint="name each adapter once")
    bare = next((name for name, slots in subjects if not slots), None)
    if bare:
        raise UsageError(
            f"{bare} puts no adapter on the base", hint="the bare base is always measured first"
        )
    for task in tasks:
        fault = task_fault(task)
        if fault:
            raise PluginError(f"the task {task.name} {fault[0]}", hint=fault[1])
    titles = [task.name for task in tasks]
    again = next((title for title in titles if titles.count(title) > 1), None)
    if again:
        raise UsageError(f"the task {again} is named twice", hint="name each task once")
