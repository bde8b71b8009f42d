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
    steps, by the clock if that is 0. `teacher` is an adapter or a composition, on `teacher_base` or
    on the student's base. `rate_found` says that a search chose `learning_rate`; it is not sought
    again. 0 switches off what else counts.
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
    rate_found: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for what no run can have."""
        _check_counts(self)
        _check_numbers(self)
        _check_choices(self)
        _check_evaluation(self)
        check_seed(self.seed)


def _check_counts(recipe: Recipe) -> None:
    least = {
        "steps": 1, "batch_size": 1, "accumulate": 1, "max_length": 2,
        "eval_every": 0, "patience": 0, "checkpoint_every": 0,
    }  # fmt: skip
    for name, lowest in least.items():
        value = getattr(recipe, name)
        if value < lowest:
            raise UsageError(
                f"--{name.replace('_', '-')} {value} is too small", hint=f"use {lowest} or more"
            )
    if recipe.batch_size % recipe.accumulate:
        raise UsageError(
            f"a batch of {recipe.batch_size} does not divide into {recipe.accumulate} parts",
            hint="choose an --accumulate that divides --batch-size",
        )


def _check_numbers(recipe: Recipe) -> None:
    """A file can say nan and inf, which compare as false."""
    if not (math.isfinite(recipe.learning_rate) and 0 < recipe.learning_rate <= 1):
        raise UsageError(
            f"a learning rate of {recipe.learning_rate:g} trains nothing",
            hint="use 1e-4 to 2e-3 for lora",
        )
    if not 0 <= recipe.warmup <= 1:
        raise UsageError(
            f"a warm-up of {recipe.warmup:g} is no share of the steps", hint="use 0 to 1"
        )
    if not 0 <= recipe.weight_decay < math.inf:
        raise UsageError(
            f"a weight decay of {recipe.weight_decay:g} makes no sense", hint="use 0 to 0.1"
        )
    if not 0 < recipe.clip < math.inf:
        raise UsageError(
            f"clipping gradients at {recipe.clip:g} makes no sense", hint="1.0 is usual"
        )
    if not 0 < recipe.lr_ratio < math.inf:
        raise UsageError(
            f"a ratio of {recipe.lr_ratio:g} between two rates makes no sense",
            hint="--lr-ratio 16 is what LoRA+ uses, 1 switches it off",
        )


def _check_choices(recipe: Recipe) -> None:
    choices: dict[str, tuple[str, ...]] = {
        "schedule": SCHEDULES, "batching": BATCHINGS, "optimizer": OPTIMIZERS,
        "precision": PRECISIONS, "keep": KEEPS,
    }  # fmt: skip
    for name, allowed in choices.items():
        value = getattr(recipe, name)
        if value not in allowed:
            raise UsageError(f"no {name} is called {value!r}", hint=f"use {', '.join(allowed)}")


def _check_evaluation(recipe: Recipe) -> None:
    if recipe.eval_every and recipe.eval_data is None:
        raise UsageError(
            "nothing is there to evaluate on", hint="name rows that are not trained on: --eval-data"
        )
    if recipe.eval_every:
        return
    if recipe.eval_data is not None:
        raise UsageError(
            f"{recipe.eval_data} would never be evaluated on", hint="add --eval-every STEPS"
        )
    if recipe.patience or recipe.keep == "best":
        asked = "--patience" if recipe.patience else "--keep best"
        raise UsageError(
            f"{asked} needs losses on rows that are not trained on",
            hint="add --eval-data FILE and --eval-every STEPS",
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
