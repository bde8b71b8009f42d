"""What the objects behind plugin records can do, and what engines are asked.

These are the public protocols a plugin implements. Tensors and models are `Any`, because this
module is imported where torch is not installed; docstrings give the shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.evaluation import Item, Message, TaskData
from adapterhub.domain.patch import Affine, Patch
from adapterhub.domain.quantization import Scheme
from adapterhub.domain.refs import Ref
from adapterhub.domain.seed import check_seed

# --- bases ------------------------------------------------------------------------------------


class LoadedBase(Protocol):
    """A base in memory. `model` is a transformers model in eval mode, its weights frozen."""

    spec: BaseSpec
    model: Any
    tokenizer: Any
    device: str

    def linear_sites(self) -> Mapping[str, tuple[int, int]]:
        """Every linear layer inside the blocks: module name -> (out, in). Never the head."""


class Backend(Protocol):
    """Stores and loads weights in the schemes its record names."""

    def quantize(self, source: Path, out: Path, scheme: Scheme) -> None:
        """Read a transformers folder in float, write one in `scheme` (safetensors) to `out`."""

    def load(self, folder: Path, scheme: Scheme, *, device: str, dtype: Any, dense: bool) -> Any:
        """A transformers model from a folder that `quantize` wrote, reading only those bytes.

        `dense` replaces each quantized weight by the float value it stands for: the same function
        with plain linear layers, correct under autograd on every CPU.
        """


# --- methods and trainers ---------------------------------------------------------------------


class AttachedAdapter(Protocol):
    """One adapter on one loaded base, under one slot; starts inactive."""

    slot: str

    def parameters(self) -> Mapping[str, Any]:
        """The trainable tensors by the name they are stored under."""

    def state(self) -> dict[str, Any]:
        """Everything to store: name -> tensor (contiguous, on the CPU, detached)."""

    def activate(self, weight: float = 1.0) -> None:
        """Take part in forward passes, the effect scaled by `weight`; others keep their part."""

    def deactivate(self) -> None: ...

    def detach(self) -> None:
        """Leave the base exactly as it was before `attach`."""


class AdapterMethod(Protocol):
    """How one method configures, attaches and describes its adapters.

    `config` values are JSON objects, as stored in `adapter_config.json`.
    """

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        """A full stored config for this base. Raises UsageError for unknown or bad options."""

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedAdapter:
        """Put an adapter on the base: fresh from `seed`, or with `state`.

        Raises MismatchError when state, config and base do not name exactly the same tensors.
        """

    def patches(
        self, config: Mapping[str, Any], state: Mapping[str, Any]
    ) -> Iterator[tuple[str, Patch]]:
        """(module name, patch) for each site, from stored bytes alone: no base is needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One tokenized row: `ids`, from where on they count as the answer, and the row's line."""

    ids: tuple[int, ...]
    answer_start: int
    line: int


class ChatTokens(Protocol):
    """A base's chat template and tokenizer, applied once and with one beginning-of-sequence."""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation up to where the assistant's turn begins."""

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """The answer after these messages, up to and including the token that ends the turn."""


class Objective(Protocol):
    """What a trainer minimises; the loop around it is the core's."""

    def examples(self, items: Iterable[tuple[int, Item]], chat: ChatTokens) -> list[Example]:
        """Tokenize (line number, conversation) pairs."""

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        """(sum of the loss, number of tokens it is over) for a left-padded batch: input_ids,
        attention_mask, position_ids, labels, each (rows, length); -100 where nothing counts."""


# --- composition and tasks --------------------------------------------------------------------


class Combine(Protocol):
    """A strategy's arithmetic at one site."""

    def __call__(
        self, patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None
    ) -> Affine:
        """One patch whose delta stands for the weighted sum (or what the strategy makes of it)."""


class TaskSource(Protocol):
    """Generates or reads a task's rows."""

    def train_rows(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        """Rows in the chat form `{"messages": [...]}`, the last message the answer."""

    def held_out(self, n: int, *, seed: int = 0) -> TaskData:
        """Items whose values never occur in `train_rows`, whatever the seeds."""


# --- engines ----------------------------------------------------------------------------------

Slots = tuple[tuple[str, float], ...]  # (slot, weight) of every adapter that takes part


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRequest:
    """Greedy when `temperature` is 0. `slots` is empty for the bare base."""

    messages: tuple[Message, ...]
    slots: Slots = ()
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
    """How likely is `answer` after `messages`? `logits` asks for those before each answer token."""

    messages: tuple[Message, ...]
    answer: str
    slots: Slots = ()
    logits: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """`logprobs` has one natural logarithm per answer token (end of turn included);
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


# --- stores -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a commit. Exactly one of `sha256` and `git_blob` may be unknown, never both."""

    path: str
    size: int
    sha256: str | None = None
    git_blob: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One immutable revision of a repository. `repo_uuid` is never reused, unlike the name."""

    ref: Ref
    commit: str
    repo_uuid: str
    files: tuple[FileEntry, ...]
    parent: str | None = None
    created: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One line of a search."""

    id: str
    commit: str | None = None
    method: str | None = None
    base: str | None = None
    updated: str | None = None
    tags: tuple[str, ...] = ()


class Store(Protocol):
    """A place adapters live in. Opening one touches neither network nor disk."""

    uri: str

    def resolve(self, ref: Ref) -> Snapshot:
        """Raises NotFoundError, UnknownRevisionError, UnreachableError or DeniedError."""

    def read(self, snapshot: Snapshot, path: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a file from `offset` on, in chunks. Nothing here verifies them."""

    def publish(
        self, ref: Ref, folder: Path, *, message: str, parent: str | None, private: bool = False
    ) -> Snapshot:
        """Make the folder's files the next revision, creating the repository if need be.

        `parent` is the commit it builds on (None: whatever is there). Raises ConflictError when
        somebody was faster, DeniedError without the right; then nothing has changed.
        """

    def search(self, query: str, *, base: str | None = None, limit: int = 50) -> list[Summary]: ...

    def names(self, namespace: str | None = None) -> list[str]:
        """`namespace/name` of what may be listed, for `list` and for did-you-mean."""

    def remove(self, ref: Ref) -> None:
        """Remove the repository; its name stays taken by a tombstone where the store can."""
