"""Choose few-shot examples by how well answers come behind them, on rows that are never examples.

Tries sets at random, then improves the best one place at a time. The search counts indices only;
`Judge` asks an engine, through whichever method makes an adapter of a set.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapterhub.domain.engines import GenerateRequest, ScoreRequest, Slots
from adapterhub.domain.evaluation import Item
from adapterhub.errors import UsageError
from adapterhub.evaluate.metrics import exact_match
from adapterhub.evaluate.tasks.files import reply_limit
from adapterhub.runtime.reference import ReferenceEngine

Measure = Literal["loglik", "exact"]
MEASURES: tuple[Measure, ...] = ("loglik", "exact")
USUAL_VALIDATION = 32
SLOT = "tried"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A set of examples, as indices into the pool in the order they are shown, and its score; minus
    infinity where it is too long for the base."""

    examples: tuple[int, ...]
    how: Literal["random", "improved"]
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Rows by their index in the file: those that may become examples, those that judge."""

    pool: tuple[int, ...]
    judges: tuple[int, ...]


def split_rows(items: Sequence[Item], *, judges: int | None, seed: int) -> Split:
    """Draw the rows that judge; a row with an equal question is no example either, nor is one of
    several turns.

    Raises UsageError when there are not enough rows.
    """
    wanted = min(USUAL_VALIDATION, len(items) // 2) if judges is None else judges
    if not 1 <= wanted < len(items):
        raise UsageError(
            f"{len(items)} rows cannot be split into {max(wanted, 1)} to judge by and some to "
            "choose from",
            hint="give more rows, or a smaller --validate",
        )
    drawn = sorted(random.Random(seed).sample(range(len(items)), k=wanted))
    asked = {_question(items[index]) for index in drawn}
    pool = [
        index for index, item in enumerate(items) if _question(item) not in asked and _single(item)
    ]
    return Split(pool=tuple(pool), judges=tuple(drawn))


def most_trials(pool: int, count: int, *, trials: int) -> int:
    """How many sets `choose` tries at most."""
    return trials + count * min(math.ceil(trials / count), pool - count)


def choose(
    pool: int,
    count: int,
    score: Callable[[tuple[int, ...]], float],
    *,
    trials: int,
    seed: int = 0,
    on_tried: Callable[[Tried], None] = lambda _: None,
) -> tuple[Tried, ...]:
    """Every set that was tried, in order; the best is the first of the highest score.

    `trials` sets are drawn; then, in each place of the best, about trials / count others of the
    pool are tried and the best of them kept. Raises UsageError for a pool that is too small.
    """
    if count > pool:
        raise UsageError(
            f"{count} examples cannot be chosen out of {pool} rows",
            hint="give more rows, or a smaller --choose or --validate",
        )
    source, tried = random.Random(seed), []

    def attempt(examples: tuple[int, ...], how: Literal["random", "improved"]) -> None:
        tried.append(Tried(examples=examples, how=how, score=score(examples)))
        on_tried(tried[-1])

    for examples in _drawn(pool, count, trials, source):
        attempt(examples, "random")
    for place in range(count):
        best = best_of(tried).examples
        others = [index for index in range(pool) if index not in best]
        for other in source.sample(others, k=min(math.ceil(trials / count), len(others))):
            attempt((*best[:place], other, *best[place + 1 :]), "improved")
    return tuple(tried)


def best_of(tried: Sequence[Tried]) -> Tried:
    return max(tried, key=lambda one: one.score)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """How well a base answers `items` behind an adapter: the mean over the answers of the mean
    log-likelihood of their tokens, or the share that is generated exactly."""

    engine: ReferenceEngine
    method: str
    items: Sequence[Item]
    measure: Measure

    def bare(self) -> float:
        return self._score(())

    def with_adapter(self, config: Mapping[str, Any]) -> float:
        """Raises DataError where the conversation becomes too long for the base."""
        rack = self.engine.rack
        rack.attach_fresh(SLOT, self.method, config, seed=0)
        try:
            return self._score(((SLOT, 1.0),))
        finally:
            rack.detach(SLOT)

    def _score(self, slots: Slots) -> float:
        found = self._likelihoods(slots) if self.measure == "loglik" else self._matches(slots)
        return math.fsum(found) / len(found)

    def _likelihoods(self, slots: Slots) -> list[float]:
        scores = self.engine.score(
            [
                ScoreRequest(messages=item.messages, answer=item.answer, slots=slots)
                for item in self.items
            ]
        )
        return [math.fsum(score.logprobs) / len(score.logprobs) for score in scores]

    def _matches(self, slots: Slots) -> list[float]:
        room = reply_limit(self.items)
        made = self.engine.generate(
            [
                GenerateRequest(messages=item.messages, slots=slots, max_new_tokens=room)
                for item in self.items
            ]
        )
        return [
            exact_match(answer.text, item.answer)
            for answer, item in zip(made, self.items, strict=True)
        ]


def example_of(item: Item) -> dict[str, str]:
    """A row as an example; a system message stays behind, since each request brings its own."""
    return {"prompt": item.messages[-1].content, "completion": item.answer}


def _question(item: Item) -> tuple[str, ...]:
    return tuple(turn.content for turn in item.messages if turn.role != "system")


def _single(item: Item) -> bool:
    return [turn.role for turn in item.messages if turn.role != "system"] == ["user"]


def _drawn(pool: int, count: int, trials: int, source: random.Random) -> Iterator[tuple[int, ...]]:
    """Different sets; fewer where the pool has not so many."""
    seen: set[tuple[int, ...]] = set()
    for _ in range(20 * trials):
        examples = tuple(source.sample(range(pool), k=count))
        if examples in seen:
            continue
        seen.add(examples)
        yield examples
        if len(seen) == trials:
            return
