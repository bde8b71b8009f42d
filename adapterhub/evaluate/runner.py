"""Ask the base and every adapter the same items and compare each adapter with the base.

Knows no file, no plugin and no screen; the engine already holds the adapters in their slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from adapterhub.domain.engines import Engine, GenerateRequest, ScoreRequest, Slots
from adapterhub.domain.evaluation import METRICS, Metric, Row, TaskData
from adapterhub.errors import MismatchError, PluginError, UsageError
from adapterhub.evaluate.compare import Difference, mean_difference, perplexity_difference
from adapterhub.evaluate.metrics import Likelihoods, exact_match, mean_stderr
from adapterhub.evaluate.result import Answer, Evaluation

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
    total = (1 + len(subjects)) * sum(len(task.items) * len(task.metrics) for task in tasks)
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
    """One subject on one task: what it answered and how likely it found the right answers."""

    name: str
    task: TaskData
    given: tuple[str, ...] = ()
    likelihoods: Likelihoods | None = None
    matches: tuple[float, ...] = ()

    def rows(self, base: _Measured | None) -> Iterator[Row]:
        """A row per metric, compared with the base unless this is the base."""
        for metric in self.task.metrics:
            if metric == "exact_match":
                score = math.fsum(self.matches) / len(self.matches)
                versus = mean_difference(self.matches, base.matches) if base else None
                yield self._row(metric, score, mean_stderr(self.matches), self.matches, versus)
            elif (own := self.likelihoods) is not None:
                other = base.likelihoods if base else None
                versus = perplexity_difference(own, other) if other else None
                yield self._row(metric, own.perplexity, own.stderr, own.per_item, versus)

    def _row(
        self,
        metric: Metric,
        score: float,
        stderr: float,
        per_item: tuple[float, ...],
        versus: Difference | None,
    ) -> Row:
        return Row(
            adapter=self.name,
            task=self.task.name,
            metric=metric,
            score=score,
            stderr=stderr,
            n=len(self.task.items),
            delta=versus.delta if versus else None,
            ci95=versus.ci95 if versus else None,
            per_item=per_item,
        )

    @property
    def answers(self) -> Iterator[Answer]:
        found = self.likelihoods
        for index, item in enumerate(self.task.items):
            yield Answer(
                adapter=self.name,
                task=self.task.name,
                item=index,
                question=item.messages[-1].content,
                expected=item.answer,
                given=self.given[index] if self.given else None,
                score=self.matches[index] if self.matches else None,
                logprob=found.logprobs[index] if found else None,
                tokens=found.tokens[index] if found else None,
            )


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
    given: tuple[str, ...] = ()
    matches: tuple[float, ...] = ()
    found: Likelihoods | None = None
    if "exact_match" in task.metrics:
        given = _generate(engine, each, task, more, sequential=sequential)
        pairs = zip(given, task.items, strict=True)
        matches = tuple(exact_match(text, item.answer) for text, item in pairs)
    if "perplexity" in task.metrics:
        found = _score(engine, each, task, more, sequential=sequential)
        _check_finite(found, name, task)
    return _Measured(name=name, task=task, given=given, likelihoods=found, matches=matches)


def _generate(
    engine: Engine,
    each: Sequence[Slots],
    task: TaskData,
    more: Callable[[int], None],
    *,
    sequential: bool,
) -> tuple[str, ...]:
    requests = [
        GenerateRequest(
            messages=item.messages,
            slots=slots,
            sequential=sequential,
            max_new_tokens=task.max_new_tokens,
        )
        for item, slots in zip(task.items, each, strict=True)
    ]
    return tuple(generation.text for generation in engine.generate(requests, on_done=more))


def _score(
    engine: Engine,
    each: Sequence[Slots],
    task: TaskData,
    more: Callable[[int], None],
    *,
    sequential: bool,
) -> Likelihoods:
    requests = [
        ScoreRequest(messages=item.messages, answer=item.answer, slots=slots, sequential=sequential)
        for item, slots in zip(task.items, each, strict=True)
    ]
    scores = engine.score(requests, on_done=more)
    return Likelihoods(
        logprobs=tuple(math.fsum(score.logprobs) for score in scores),
        tokens=tuple(len(score.logprobs) for score in scores),
    )


def _check_finite(found: Likelihoods, name: str, task: TaskData) -> None:
    for number, logprob in enumerate(found.logprobs, start=1):
        if not math.isfinite(logprob):
            raise MismatchError(
                f"{name} gives log-probabilities that are not finite on item {number} of "
                f"{task.name}",
                hint="`adapterhub verify` checks its weights; they may overflow on this base",
            )


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
        if not task.items or not set(task.metrics) <= set(METRICS):
            raise PluginError(
                f"the task {task.name} has no items, or a metric that is not known",
                hint=f"metrics: {', '.join(METRICS)}",
            )
    titles = [task.name for task in tasks]
    again = next((title for title in titles if titles.count(title) > 1), None)
    if again:
        raise UsageError(f"the task {again} is named twice", hint="name each task once")
