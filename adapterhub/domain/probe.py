"""What an adapter did to its base when it was made, to be held against what it does elsewhere.

Values only; how they are measured and compared is for `adapterhub.trust`.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapterhub.domain.evaluation import Message
from adapterhub.domain.quantization import Scheme

# What a base is asked, and answers that are likely: everyday prompts, of no adapter's task.
PROMPTS: tuple[tuple[str, str], ...] = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Translate to Korean: good morning", "좋은 아침입니다"),
    ("Write the number 42 as JSON.", '{"number": 42}'),
    ("def add(a, b):", "    return a + b"),
    ("Say it shorter: The cat sat down on the mat.", "The cat sat down."),
    ("What is 17 + 25?", "17 + 25 = 42"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """What computed a probe. `base` is the content digest of the base's fingerprint, `dtype` that
    of the activations, `device` a kind: cpu or cuda."""

    base: str
    scheme: Scheme
    dtype: str
    device: str
    torch: str
    transformers: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """The likeliest tokens at one place of one prompt, with and without the adapter, and the
    logits of each token both ways."""

    tokens: tuple[int, ...]
    without: tuple[float, ...]
    having: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError, which whoever reads a file turns into an error that names it."""
        same = len(self.tokens) == len(self.without) == len(self.having)
        if not self.tokens or not same or min(self.tokens) < 0:
            raise ValueError("a position needs tokens, each with a logit both ways")


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """`prompts` is the digest of the prompts, `adapter` that of the weights and config they were
    asked with; `bound` of its `tensors` reached the base. `relative` is |with - without| over
    |without| of all logits. `norms` has the size of what each module's patch changes, scaling
    included: the largest of them, where an adapter has very many."""

    prompts: str
    adapter: str
    tensors: int
    bound: int
    relative: float
    norms: dict[str, float]
    positions: tuple[Position, ...]
    environment: Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """A conversation, and what the adapter answered to it greedily, in at most 64 tokens."""

    messages: tuple[Message, ...]
    answer: str
