"""What an evaluation asks and what it answers, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

Metric = Literal[
    "exact_match",
    "regex",
    "json_equal",
    "f1",
    "rouge1",
    "rouge2",
    "rougeL",
    "chrf",
    "bleu",
    "perplexity",
    "bits_per_byte",
    "acc",
    "acc_norm",
    "acc_bytes",
]
METRICS: tuple[Metric, ...] = get_args(Metric)

# generate: answers are written and compared. likelihood: the expected ones are scored and nothing
# is written. choice: the likeliest of some given answers is taken.
Kind = Literal["generate", "likelihood", "choice"]
USUAL_METRICS: dict[Kind, tuple[Metric, ...]] = {
    "generate": ("exact_match", "perplexity"),
    "likelihood": ("perplexity",),
    "choice": ("acc", "acc_norm"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation; `role` is system, user or assistant."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question with the one answer that counts as right: `choices[right]` where there are any,
    since two of them may read alike. `adapter` names the one that is to answer, where several are
    there by `switch`."""

    messages: tuple[Message, ...]
    answer: str
    choices: tuple[str, ...] = ()
    right: int = 0
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskData:
    """A task ready to run. `digest` is the sha256 of its items and of what else decides a score,
    so equal digests compare.

    With `chat` unset the base reads the one message of each item as it stands, without template or
    end of turn, and answers and choices are scored behind `separator`. A written answer ends before
    the first of `stop`; `pattern` is what `regex` finds.
    """

    name: str
    items: tuple[Item, ...]
    digest: str
    max_new_tokens: int = 64
    metrics: tuple[Metric, ...] = USUAL_METRICS["generate"]
    kind: Kind = "generate"
    chat: bool = True
    separator: str = " "
    stop: tuple[str, ...] = ()
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a result. `delta` and `ci95` are against the base on the same items, None for
    the base itself; a delta is a difference of scores, whichever way is better. `signature` is what
    the library that computed the score calls its settings."""

    adapter: str
    task: str
    metric: Metric
    score: float
    stderr: float
    n: int
    delta: float | None = None
    ci95: tuple[float, float] | None = None
    per_item: tuple[float, ...] = field(default=(), repr=False)
    signature: str | None = None
