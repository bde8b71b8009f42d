"""Everything a training run needs, as one value that reproduces it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from adapterhub.domain.seed import check_seed
from adapterhub.errors import UsageError

Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "linear", "constant")
Batching = Literal["padded", "bucketed", "packed"]
BATCHINGS: tuple[Batching, ...] = ("padded", "bucketed", "packed")
Optimizer = Literal["adamw", "adamw8bit", "paged_adamw8bit"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "adamw8bit", "paged_adamw8bit")
Precision = Literal["auto", "float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bf16")
Keep = Literal["last", "best"]
KEEPS: tuple[Keep, ...] = ("last", "best")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """`data` and `eval_data` are a JSONL file or a task's name; `options` are the method's own,
    `trainer_options` the trainer's.

    `batch_size` rows make a step, in `accumulate` equal parts; `warmup` is a share of `steps`.
    `lr_ratio` is the rate of B factors over that of all else (LoRA+, arXiv 2402.12354);
    `checkpointing` recomputes activations in the backward pass. Every `eval_every` steps the loss
    on `eval_data` is taken; a run stops when it has not fallen `patience` times in a row, and
    keeps the `last` or the `best` parameters. A checkpoint is written every `checkpoint_every`
    steps. `teacher` is an adapter or a composition, on `teacher_base` or on the student's base.
    0 switches off what counts.
    """

    base: str
    data: str
    method: str = "lora"
    trainer: str = "sft"
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 100
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    max_length: int = 2048
    seed: int = 0
    lr_ratio: float = 1.0
    optimizer: Optimizer = "adamw"
    precision: Precision = "auto"
    checkpointing: bool = False
    batching: Batching = "padded"
    eval_data: str | None = None
    eval_every: int = 0
    patience: int = 0
    keep: Keep = "last"
    checkpoint_every: int = 0
    trainer_options: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    teacher_base: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a number no run can have."""
        whole = {"steps": self.steps, "batch-size": self.batch_size, "accumulate": self.accumulate}
        for name, value in whole.items():
            if value < 1:
                raise UsageError(f"--{name} {value} is too small", hint="use 1 or more")
        if self.batch_size % self.accumulate:
            raise UsageError(
                f"a batch of {self.batch_size} does not divide into {self.accumulate} parts",
                hint="choose an --accumulate that divides --batch-size",
            )
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 1):
            raise UsageError(
                f"a learning rate of {self.learning_rate:g} trains nothing",
                hint="use 1e-4 to 2e-3 for lora",
            )
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"no schedule is called {self.schedule!r}", hint=f"use {', '.join(SCHEDULES)}"
            )
        # A file can say nan and inf, which compare as false.
        if not 0 <= self.warmup <= 1:
            raise UsageError(
                f"a warm-up of {self.warmup:g} is no share of the steps", hint="use 0 to 1"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(
                f"a weight decay of {self.weight_decay:g} makes no sense", hint="use 0 to 0.1"
            )
        if not 0 < self.clip < math.inf:
            raise UsageError(
                f"clipping gradients at {self.clip:g} makes no sense", hint="1.0 is usual"
            )
        check_seed(self.seed)
        if self.max_length < 2:
            raise UsageError(
                f"a row of {self.max_length} tokens has no answer", hint="2048 is usual"
            )


def learning_rate_at(recipe: Recipe, step: int) -> float:
    """The rate of step `step`, counted from 0: linear warm-up, then the schedule, to 10%."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, recipe.steps - warmup)
    if recipe.schedule == "constant":
        factor = 1.0
    elif recipe.schedule == "linear":
        factor = 1.0 - 0.9 * progress
    else:
        factor = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.learning_rate * factor
