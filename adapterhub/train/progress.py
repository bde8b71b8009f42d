"""How far a run has come, as values: steps, the best parameters so far, and the outcome.

Knows numbers and copies of tensors; how a step is made is the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from adapterhub.domain.recipe import Recipe

Stopped = Literal["finished", "early", "interrupted", "terminated", "diverged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One optimizer step: mean loss a token, gradient norm before clipping, tokens since start.

    `eval_loss` is the mean loss a token on the rows held out, taken after the step, or None.
    """

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    seconds: float
    eval_loss: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """All steps that were done, and why there are no more.

    `kept` is the step after which the adapter's parameters are; `padding` the share of what went
    through the model that was padding; `optimizer` and `accumulate` what was really used; `resumed`
    the step from which a checkpoint went on.
    """

    steps: tuple[Step, ...]
    stopped: Stopped
    kept: int = 0
    padding: float = 0.0
    optimizer: str = "adamw"
    accumulate: int = 1
    resumed: int = 0

    @property
    def eval_loss(self) -> float | None:
        """That of the parameters that were kept, where it was taken."""
        return self.steps[self.kept - 1].eval_loss if 0 < self.kept <= len(self.steps) else None


@dataclass(kw_only=True)
class Progress:
    """What a run needs to go on. `part` rows go through the model at once; `positions` have so far,
    padding included; `best` are parameters on the CPU, those of `best_step`; `stale` evaluations
    have passed since. `good` are the parameters to go back to, those of `good_step`, from before
    the last update that may prove bad. `rng` are the states of torch's generators after the last
    step."""

    part: int
    optimizer: str = "adamw"
    steps: list[Step] = field(default_factory=list)
    positions: int = 0
    best: dict[str, Any] | None = None
    best_step: int = 0
    stale: int = 0
    good: dict[str, Any] = field(default_factory=dict)
    good_step: int = 0
    rng: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self.steps)

    def evaluation_is_due(self, recipe: Recipe) -> bool:
        if not recipe.eval_every or not self.steps or self.steps[-1].eval_loss is not None:
            return False
        return self.done % recipe.eval_every == 0 or self.done == recipe.steps

    def evaluated(self, loss: float, parameters: Mapping[str, Any], *, keep_best: bool) -> None:
        """Note the loss on held-out rows after the last step."""
        before = self.steps[self.best_step - 1].eval_loss if self.best_step else None
        self.steps[-1] = replace(self.steps[-1], eval_loss=loss)
        # One that is not a number is never the lowest.
        if before is None or loss < before or (math.isnan(before) and not math.isnan(loss)):
            self.best_step, self.stale = self.done, 0
            if keep_best:
                self.best = {n: t.detach().to("cpu", copy=True) for n, t in parameters.items()}
        else:
            self.stale += 1

    def healthy(self, parameters: Mapping[str, Any]) -> None:
        """Remember the parameters as they are, whose loss was good, before they are updated."""
        copy_into(self.good, parameters)
        self.good_step = self.done

    def go_back(self, parameters: Mapping[str, Any]) -> None:
        """To the last parameters whose loss was good, on a batch or on the rows held out; what came
        after them broke it."""
        source, step = self.good, self.good_step
        if self.best_step > self.good_step:
            held_out = self.steps[self.best_step - 1].eval_loss
            if self.best is not None and held_out is not None and math.isfinite(held_out):
                source, step = self.best, self.best_step
            else:
                self.best, self.best_step = None, 0
        copy_into(parameters, source)
        del self.steps[step:]

    def outcome(self, recipe: Recipe, stopped: Stopped, *, kept: int, resumed: int) -> Outcome:
        tokens = self.steps[-1].tokens if self.steps else 0
        return Outcome(
            steps=tuple(self.steps),
            stopped=stopped,
            kept=kept,
            padding=1 - tokens / self.positions if self.positions else 0.0,
            optimizer=self.optimizer,
            accumulate=math.ceil(recipe.batch_size / self.part),
            resumed=resumed,
        )


def copy_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def copy_into(target: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Overwrite tensors with those of the same names."""
    import torch

    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name].detach())


def generator_states(device: str) -> dict[str, Any]:
    """The states of the generators that a step on this device draws from."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generators(states: Mapping[str, Any], device: str) -> None:
    import torch

    torch.set_rng_state(states["cpu"])
    if device.startswith("cuda") and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
