"""What engines are asked and what they answer: one interface for everything that runs a base.

Tensors are `Any`, because this module is imported where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adapterhub.domain.evaluation import Message
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.scales import ModuleWeights
from adapterhub.domain.seed import check_seed

# Of a whole adapter, or of one at each of its modules.
Weight = float | ModuleWeights
Slots = tuple[tuple[str, Weight], ...]  # (slot, weight) of every adapter that takes part, in order


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    """Greedy when `temperature` is 0. `slots` is empty for the bare base.

    Adapters add up, or where `sequential` is set, each changes what those before it have made; a
    conversation is changed by one after the other in any case. With `chat` unset the one message is
    continued as it stands, without a template.
    """

    messages: tuple[Message, ...]
    slots: Slots = ()
    sequential: bool = False
    chat: bool = True
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """`seconds` is the wall time of the batch this request ran in."""

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    """How likely is `answer` after `messages`? `logits` asks for those before each answer token.

    With `chat` unset, how likely does `answer` continue the one message as it stands, or begin a
    text where there is none?
    """

    messages: tuple[Message, ...]
    answer: str
    slots: Slots = ()
    sequential: bool = False
    chat: bool = True
    logits: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """`logprobs` has one natural logarithm per answer token (in a chat, end of turn included);
    `logits` is a float32 tensor (answer tokens, vocabulary) if it was asked for."""

    logprobs: tuple[float, ...]
    token_ids: tuple[int, ...]
    logits: Any = field(default=None, repr=False, compare=False)


class Engine(Protocol):
    """Runs a base with adapters attached to slots. Results come in the order of the requests."""

    base: LoadedBase

    def generate(
        self, requests: Sequence[GenerateRequest], *, on_text: Any = None, on_done: Any = None
    ) -> list[Generation]:
        """`on_text(str)` streams, for one request only; `on_done(count)` reports progress."""

    def score(self, requests: Sequence[ScoreRequest], *, on_done: Any = None) -> list[Score]: ...
