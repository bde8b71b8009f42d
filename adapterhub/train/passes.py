"""Examples through the model: the gradient of a batch's mean loss, and the loss without one.

Takes as many examples at once as fit into memory, whatever a step holds; which parameters move,
and how far, is the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from adapterhub.domain.protocols import Example, LoadedBase, Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import TrainingError
from adapterhub.models.quiet import quiet
from adapterhub.train.data import collate, collate_packed
from adapterhub.train.progress import generator_states, set_generators

T = TypeVar("T")


@dataclass(kw_only=True)
class Passes:
    """`part` examples go through at once; running out of memory halves it, for good."""

    recipe: Recipe
    base: LoadedBase
    objective: Objective
    part: int
    say: Callable[[str], None]

    def gradient(
        self, batch: Sequence[Example], parameters: Mapping[str, Any]
    ) -> tuple[float, int]:
        """Accumulate the gradient of the mean loss a token; (that loss, positions computed)."""

        def attempt() -> tuple[float, int]:
            for tensor in parameters.values():
                tensor.grad = None
            return self._gradient(batch)

        return self._within_memory(attempt)

    def mean_loss(self, examples: Sequence[Example]) -> float:
        """The mean loss a token, without gradient or dropout; draws no random number."""
        import torch

        states = generator_states(self.base.device)
        self.base.model.eval()
        try:
            with torch.no_grad():
                return self._within_memory(lambda: self._mean_loss(examples))
        finally:
            self.base.model.train()
            set_generators(states, self.base.device)

    def _gradient(self, batch: Sequence[Example]) -> tuple[float, int]:
        wanted = sum(len(example.ids) - example.answer_start for example in batch)
        total, positions = 0.0, 0
        for start in range(0, len(batch), self.part):
            rows = self._collate(batch[start : start + self.part])
            loss, _ = self._loss(rows)
            (loss / wanted).backward()
            total += loss.item()
            positions += rows["input_ids"].numel()
        return total / wanted, positions

    def _mean_loss(self, examples: Sequence[Example]) -> float:
        total, count = 0.0, 0
        # Rows of similar length together: less padding, the same sum.
        alike = sorted(examples, key=lambda example: len(example.ids))
        for start in range(0, len(alike), self.part):
            loss, tokens = self._loss(self._collate(alike[start : start + self.part]))
            total += loss.item()
            count += tokens
        return total / count

    def _collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        pad, device = self.base.tokenizer.pad_token_id, self.base.device
        if self.recipe.batching != "packed":
            return collate(examples, pad=pad, device=device)
        longest = self.base.spec.context_length or self.recipe.max_length
        limit = min(self.recipe.max_length, longest)
        return collate_packed(examples, limit=limit, pad=pad, device=device)

    def _loss(self, rows: Mapping[str, Any]) -> tuple[Any, int]:
        import torch

        kind = self.base.device.partition(":")[0]
        chosen = self.recipe.precision
        half = chosen == "bf16" or (chosen == "auto" and kind == "cuda")
        with quiet(), torch.autocast(device_type=kind, dtype=torch.bfloat16, enabled=half):
            return self.objective.loss(self.base.model, rows)

    def _within_memory(self, attempt: Callable[[], T]) -> T:
        """Try again with half as many examples at once, from the same random numbers."""
        import torch

        states = generator_states(self.base.device)
        while True:
            try:
                return attempt()
            except torch.OutOfMemoryError as error:
                if self.part == 1:
                    raise TrainingError(
                        "one row alone does not fit into the device's memory",
                        hint="lower --max-length, or add --checkpointing",
                    ) from error
            # Past the error, whose traceback held what was computed.
            self.part = -(-self.part // 2)
            self.say(f"out of memory: {self.part} rows at once from here on, as many a step")
            if self.base.device.startswith("cuda"):
                torch.cuda.empty_cache()
            set_generators(states, self.base.device)


@contextmanager
def training(
    base: LoadedBase, parameters: Mapping[str, Any], *, checkpointing: bool
) -> Iterator[None]:
    """The base in training mode, as it was afterwards, however the block ends."""
    model = base.model
    if checkpointing:
        # Re-entrant checkpoints would need inputs with a gradient, which a frozen base has not.
        _switch(model, "enable", {"use_reentrant": False})
    model.train()
    try:
        yield
    finally:
        model.eval()
        if checkpointing:
            _switch(model, "disable")
        for tensor in parameters.values():
            tensor.requires_grad_(False)
            tensor.grad = None


def _switch(model: Any, way: str, *settings: Any) -> None:
    """Newer releases of transformers say activation checkpointing for the same."""
    newer = getattr(model, f"activation_checkpointing_{way}", None)
    (newer or getattr(model, f"gradient_checkpointing_{way}"))(*settings)
