"""What an evaluation asks and what it answers, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Metric = Literal["exact_match", "perplexity"]
METRICS: tuple[Metric, ...] = ("exact_match", "perplexity")


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation; `role` is system, user or assistant."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question with the one answer that counts as right. `adapter` names the one that is to
    answer, where several are there by `switch`."""

    messages: tuple[Message, ...]
    answer: str
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskData:
    """A task ready to run; `digest` is the sha256 of its items, so equal digests compare."""

    name: str
    items: tuple[Item, ...]
    digest: str
    max_new_tokens: int = 64
    metrics: tuple[Metric, ...] = METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a result. `delta` and `ci95` are against the base on the same items, None for
    the base itself. Perplexity is of the answer's tokens; its delta is a difference of
    perplexities, so that smaller is better."""

    adapter: str
    task: str
    metric: Metric
    score: float
    stderr: float
    n: int
    delta: float | None = None
    ci95: tuple[float, float] | None = None
    per_item: tuple[float, ...] = field(default=(), repr=False)
