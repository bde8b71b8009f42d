"""The training loop, to be read from top to bottom.

Parameters move only after the loss and the gradient were seen to be finite, and go back to those of
the last good loss when later ones are not, or explode; a signal waits until an update is whole. So
whatever stops a run (Ctrl-C, SIGTERM, divergence), what it leaves is good. It knows an objective
and an adapter's parameters, not which method or task they belong to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from adapterhub.domain.protocols import AttachedAdapter, Example, LoadedBase, Objective
from adapterhub.domain.recipe import Recipe, learning_rate_at
from adapterhub.errors import Terminated, TrainingError
from adapterhub.train.batching import batches
from adapterhub.train.checkpoint import Checkpoint, Pace
from adapterhub.train.guard import (
    Explosion,
    all_finite,
    any_moved,
    check_gradients,
    named,
    nothing_moved,
    only_these_train,
    uninterrupted,
    unreached,
)
from adapterhub.train.optimizer import make_optimizer, set_rate
from adapterhub.train.passes import Passes, training
from adapterhub.train.progress import (
    Outcome,
    Progress,
    Step,
    Stopped,
    copy_into,
    copy_of,
    generator_states,
    set_generators,
)

__all__ = ["Outcome", "Step", "Stopped", "fit"]


def fit(
    recipe: Recipe,
    base: LoadedBase,
    adapter: AttachedAdapter,
    objective: Objective,
    examples: Sequence[Example],
    *,
    eval_examples: Sequence[Example] = (),
    on_step: Callable[[Step], None] = lambda _: None,
    rate: Callable[[int], float] | None = None,
    checkpoint: Checkpoint | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train the adapter's parameters and nothing else.

    `rate` gives the learning rate of a step, counted from 0, in the place of the recipe's. With a
    `checkpoint` the run goes on from it, writes it as often as the recipe says, and when it is
    stopped. Raises TrainingError when the first step shows that nothing can be learnt.
    """
    import torch

    parameters = dict(adapter.parameters())
    adapter.activate()
    only_these_train(base, parameters)
    part = recipe.batch_size // recipe.accumulate
    optimizer, kind = make_optimizer(recipe, parameters, device=base.device, say=say)
    run = _Run(
        recipe=recipe,
        parameters=parameters,
        optimizer=optimizer,
        passes=Passes(recipe=recipe, base=base, objective=objective, part=part, say=say),
        eval_examples=eval_examples,
        on_step=on_step,
        rate=rate or (lambda number: learning_rate_at(recipe, number)),
        checkpoint=checkpoint,
        progress=Progress(part=part, optimizer=kind),
    )
    torch.manual_seed(recipe.seed)
    with training(base, parameters, checkpointing=recipe.checkpointing):
        return run.to_the_end(examples)


@dataclass(kw_only=True)
class _Run:
    """One call of `fit`. `silent` are the parameters that no gradient has reached so far."""

    recipe: Recipe
    parameters: dict[str, Any]
    optimizer: Any
    passes: Passes
    eval_examples: Sequence[Example]
    on_step: Callable[[Step], None]
    rate: Callable[[int], float]
    checkpoint: Checkpoint | None
    progress: Progress
    resumed: int = 0
    moved: bool = False
    clean: bool = True
    silent: frozenset[str] = frozenset()
    explosion: Explosion = field(default_factory=Explosion)
    pace: Pace = field(default_factory=Pace)
    clock: float = field(default_factory=time.perf_counter)

    def to_the_end(self, examples: Sequence[Example]) -> Outcome:
        self.progress.good = copy_of(self.parameters)
        self._resume()
        try:
            stopped = self._steps(examples)
        except (KeyboardInterrupt, Terminated) as stop:
            return self._stopped(stop)
        except TrainingError:
            raise
        except BaseException:  # a full disk, a teacher's fault: what was learnt is worth keeping
            self._keep()
            raise
        if self.explosion.ended_lost or not all_finite(self.parameters):
            stopped = "diverged"
        if stopped == "diverged":
            self.progress.go_back(self.parameters)
        else:
            self._keep()  # until the adapter itself is on the disk
        kept = self.progress.done
        if self.progress.best is not None:
            copy_into(self.parameters, self.progress.best)
            kept = self.progress.best_step
        return self._outcome(stopped, kept=kept)

    def _steps(self, examples: Sequence[Example]) -> Stopped:
        progress = self.progress
        rows = batches(
            examples,
            size=self.recipe.batch_size,
            seed=self.recipe.seed,
            batching=self.recipe.batching,
        )
        if self.resumed:
            self._settle()  # the checkpoint may lie between a step and its evaluation
        for batch in islice(rows, self.resumed, self.recipe.steps):
            if self.recipe.patience and progress.stale >= self.recipe.patience:
                return "early"
            if not self._step(batch):
                return "diverged"
            self._settle()
            self.on_step(progress.steps[-1])
            if self._checkpoint_is_due():
                self._save()
        return "finished"

    def _step(self, batch: list[Example]) -> bool:
        """One update, if loss and gradient allow it; whether they do."""
        import torch

        number = self.progress.done
        set_rate(self.optimizer, self.rate(number))
        loss, positions = self.passes.gradient(batch, self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return False
        self.explosion.see(loss)
        if self.explosion.certain:
            return False
        self._check_gradients(number, norm)
        with uninterrupted():
            if self.explosion.calm:
                self.progress.healthy(self.parameters)
            self.clean = False
            self._update()
            self.progress.steps.append(self._note(batch, loss, norm))
            self.progress.positions += positions
            self.progress.part = self.passes.part
            self.progress.rng = generator_states(self.passes.base.device)
            self.clean = True
        self._check_movement(number)
        return True

    def _update(self) -> None:
        import torch

        try:
            self.optimizer.step()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "the optimizer's state does not fit into the device's memory",
                hint="use --optimizer paged_adamw8bit, or a smaller adapter",
            ) from error
        self.optimizer.zero_grad()

    def _note(self, batch: list[Example], loss: float, norm: float) -> Step:
        last = self.progress.steps[-1] if self.progress.steps else None
        now = time.perf_counter()
        elapsed, self.clock = now - self.clock, now
        return Step(
            number=self.progress.done + 1,
            loss=loss,
            gradient_norm=norm,
            learning_rate=self.rate(self.progress.done),
            tokens=(last.tokens if last else 0) + sum(len(example.ids) for example in batch),
            seconds=(last.seconds if last else 0.0) + elapsed,
        )

    def _check_gradients(self, number: int, norm: float) -> None:
        """A may wait for B's first move, and so may all that is multiplied by what starts at zero;
        what the second step does not reach either, none will."""
        if number == self.resumed:
            check_gradients(self.passes.base, self.parameters, norm)
            self.silent = unreached(self.parameters)
        elif number == self.resumed + 1 and self.silent:
            self.silent &= unreached(self.parameters)
            if self.silent:
                names = [name for name in self.parameters if name in self.silent]
                self.passes.say(
                    f"no gradient reaches {len(names)} of {len(self.parameters)} parameters, which "
                    f"stay as they are: {named(names)}"
                )

    def _check_movement(self, number: int) -> None:
        """Warm-up may be too slow for the first update to show, but not for the second."""
        if number > 1 or self.moved or self.resumed:
            return
        self.moved = any_moved(self.progress.good, self.parameters)
        if not self.moved and (number == 1 or self.recipe.steps == 1):
            raise nothing_moved()

    def _settle(self) -> None:
        """Take the loss on held-out rows where it is due."""
        if self.eval_examples and self.progress.evaluation_is_due(self.recipe):
            loss = self.passes.mean_loss(self.eval_examples)
            self.progress.evaluated(loss, self.parameters, keep_best=self.recipe.keep == "best")

    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.step():
            self.progress.rng = generator_states(self.passes.base.device)
            return
        self.checkpoint.load(self.progress, self.parameters, self.optimizer)
        self.passes.part = self.progress.part
        self.resumed = self.progress.done
        for step in self.progress.steps:
            self.explosion.see(step.loss)
        set_generators(self.progress.rng, self.passes.base.device)

    def _checkpoint_is_due(self) -> bool:
        every = self.recipe.checkpoint_every
        return self.progress.done % every == 0 if every else self.pace.due()

    def _save(self) -> None:
        if self.checkpoint is not None:
            with self.pace.writing():
                self.checkpoint.save(self.progress, self.parameters, self.optimizer)

    def _keep(self) -> None:
        """A checkpoint of the last whole step, if there was one."""
        if self.clean and self.progress.done:
            with uninterrupted():
                self._save()

    def _stopped(self, stop: BaseException) -> Outcome:
        if not self.clean:  # within an update that nothing protected: it is taken back
            self.progress.go_back(self.parameters)
        else:
            self._keep()
        stopped: Stopped = "terminated" if isinstance(stop, Terminated) else "interrupted"
        return self._outcome(stopped, kept=self.progress.done)

    def _outcome(self, stopped: Stopped, *, kept: int) -> Outcome:
        return self.progress.outcome(self.recipe, stopped, kept=kept, resumed=self.resumed)
