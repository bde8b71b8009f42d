"""What the objects behind plugin records can do.

These are the public protocols a plugin implements. Tensors and models are `Any`, because this
module is imported where torch is not installed; docstrings give the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.evaluation import Item, Message, TaskData
from adapterhub.domain.patch import Affine, Patch
from adapterhub.domain.quantization import Scheme
from adapterhub.domain.sites import Handle, Site, SiteKind

# --- bases ------------------------------------------------------------------------------------


class LoadedBase(Protocol):
    """A base in memory. `model` is a transformers model in eval mode, its weights frozen.

    `shared` is where adapters on this base keep what they must know of each other, under a key
    of their method's own. While `sequential` is set, changes of a site feed each other in the order
    of activation instead of adding up.
    """

    spec: BaseSpec
    model: Any
    tokenizer: Any
    device: str
    shared: dict[str, Any]
    sequential: bool

    def sites(self, kind: SiteKind) -> Mapping[str, Site]:
        """Every site of a kind by name, in the model's order; the head is not among them."""

    def parameters(self) -> Mapping[str, Any]:
        """The base's own parameters by name, whatever is attached; tied ones once."""

    def add_to_parameter(self, name: str, change: Callable[[], Any]) -> Handle:
        """From now on forward passes see p + change() in the place of the parameter p, which itself
        stays as it is. change() has the shape of p and may carry a gradient; several add up."""

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

    def weight(self, layer: Any) -> Any:
        """What a quantized linear layer's bytes stand for: float32 (out, in), on its device.

        Raises CapabilityError for a layer of another backend.
        """


# --- methods and trainers ---------------------------------------------------------------------


class AttachedAdapter(Protocol):
    """One adapter on one loaded base, under one slot; starts inactive.

    `config` is what to store beside `state()`: that of `attach`, unless what was attached is
    stored in another form.
    """

    slot: str
    config: Mapping[str, Any]

    def parameters(self) -> Mapping[str, Any]:
        """The trainable tensors by name, in the order they always have. One that is stored as it is
        trained has the name it is stored under."""

    def state(self) -> dict[str, Any]:
        """Everything to store: name -> tensor (contiguous, on the CPU, detached)."""

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        """Take part in forward passes, the effect scaled by `weight`; others keep their part.

        A sequence gives each row of a batch its own weight, where the method declares MIXED_BATCH;
        a mapping each module that its patches name, where it declares MODULE_WEIGHTS.
        Raises CapabilityError for a weight that means nothing to this adapter.
        """

    def deactivate(self) -> None: ...

    def detach(self) -> None:
        """Leave the base exactly as it was before `attach`."""


@runtime_checkable
class RewritesMessages(Protocol):
    """An attached adapter that works on the conversation, before it becomes tokens."""

    def messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The conversation as this adapter would have it; asked only while it is active."""


@runtime_checkable
class PrecedesInput(Protocol):
    """An attached adapter with tokens of its own before the input, which count against the base's
    context length: whoever has a Prompt of embeddings, or of keys and values, as its patch."""

    @property
    def virtual_tokens(self) -> int: ...


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
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        """(module name, patch) for each site, "" being the whole model.

        From stored bytes alone where the method allows it. Raises CapabilityError without a `base`
        when the patches depend on the base's own weights.
        """


@runtime_checkable
class ChecksTensors(Protocol):
    """A method that can tell, without a base, whether a file holds what a config calls for."""

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        """Raises FormatError or MismatchError for a stored config that is none, and for tensors
        that are missing, too many or of other shapes.

        `tensors` maps names to objects that have a `shape` and no values; `family` is that of the
        base, where it is known. Called where torch is not installed.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One tokenized row: `ids`, from where on they count as the answer, and the row's line."""

    ids: tuple[int, ...]
    answer_start: int
    line: int


class ChatTokens(Protocol):
    """A base's chat template and tokenizer, applied once and with one beginning-of-sequence."""

    @property
    def tokenizer(self) -> Any: ...

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation up to where the assistant's turn begins."""

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """The answer after these messages, up to and including the token that ends the turn."""


class Teacher(Protocol):
    """A frozen model to learn from: another base, or the student's own with other adapters.

    `vocabulary` is how many logits it answers with; an equal `digest` means equal weights.
    """

    name: str
    digest: str
    vocabulary: int

    @property
    def chat(self) -> ChatTokens:
        """Its own template and tokenizer, and what its adapters make of a conversation."""

    def logits(self, batch: Mapping[str, Any]) -> Any:
        """Float32 logits (rows, columns, vocabulary) at `batch["columns"]`, without gradient, for
        rows of its own tokens. The student's adapter takes no part, and does again afterwards."""

    def close(self) -> None:
        """Free what only the teacher needs; it is asked no more."""


class Objective(Protocol):
    """What a trainer minimises; the loop around it is the core's.

    A trainer's target is called with its options (JSON values) and, as `teacher=`, with the Teacher
    that its recipe names or None. It raises UsageError for options it does not know.
    """

    def examples(self, items: Iterable[tuple[int, Item]], chat: ChatTokens) -> list[Example]:
        """Tokenize (line number, conversation) pairs."""

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        """(sum of the loss, number of tokens it is over) for a batch.

        input_ids, position_ids, labels (-100 where nothing counts) are (rows, length), and so is
        attention_mask, or None where several examples lie in one row, each starting at position 0.
        `columns` (columns,) are those before which a label counts in any row: the ones to ask
        the model for, as `logits_to_keep`. `examples` are the batch's examples in order; the labels
        that count, read row by row, are the answers' tokens of these.
        """


# --- composition and tasks --------------------------------------------------------------------


class Combine(Protocol):
    """A strategy's arithmetic at one site."""

    def __call__(
        self,
        patches: Sequence[Affine],
        weights: Sequence[float],
        *,
        rank: int | None,
        **options: float,
    ) -> Affine:
        """One patch whose delta stands for the weighted sum (or what the strategy makes of it).

        `options` are those of its record that a person gave, by keyword; a strategy without any
        needs no such parameter.
        """


class TaskSource(Protocol):
    """Generates or reads a task's rows."""

    def train_rows(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        """Rows in the chat form `{"messages": [...]}`, the last message the answer."""

    def held_out(self, n: int, *, seed: int = 0) -> TaskData:
        """Items whose values never occur in `train_rows`, whatever the seeds."""
