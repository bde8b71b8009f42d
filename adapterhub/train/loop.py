"""The training loop, to be read from top to bottom.

Parameters move only after the loss and the gradient were seen to be finite, and go back to those of
the last finite loss when the next one is not; so whatever stops a run (Ctrl-C, SIGTERM,
divergence), what it leaves is good. It knows an objective and an adapter's parameters, not which
method or task they belong to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapterhub.domain.protocols import AttachedAdapter, Example, LoadedBase, Objective
from adapterhub.domain.recipe import Recipe, learning_rate_at
from adapterhub.errors import Terminated, TrainingError
from adapterhub.models.quiet import quiet
from adapterhub.train.data import batches, collate

Stopped = Literal["finished", "interrupted", "terminated", "diverged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One optimizer step: mean loss a token, gradient norm before clipping, tokens since start."""

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """All steps that were done, and why there are no more."""

    steps: tuple[Step, ...]
    stopped: Stopped


def fit(
    recipe: Recipe,
    base: LoadedBase,
    adapter: AttachedAdapter,
    objective: Objective,
    examples: Sequence[Example],
    *,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Outcome:
    """Train the adapter's parameters and nothing else. Raises TrainingError when the first step
    shows that nothing can be learnt."""
    import torch

    parameters = dict(adapter.parameters())
    adapter.activate()
    _only_these_train(base, parameters)
    before = proven = _copy(parameters)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    rows = batches(examples, size=recipe.batch_size, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    steps: list[Step] = []
    stopped: Stopped = "finished"
    updates, tokens, started = 0, 0, time.perf_counter()
    base.model.train()
    try:
        for number in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(recipe, number)
            batch = next(rows)
            loss = _backward(recipe, base, objective, batch)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.clip))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                stopped = "diverged"
                break
            if number == 0:
                _gradients_flow(norm)
            proven = _copy(parameters)
            updates += 1
            optimizer.step()
            optimizer.zero_grad()
            tokens += sum(len(example.ids) for example in batch)
            steps.append(
                Step(
                    number=number + 1,
                    loss=loss,
                    gradient_norm=norm,
                    learning_rate=learning_rate_at(recipe, number),
                    tokens=tokens,
                    seconds=time.perf_counter() - started,
                )
            )
            if number == 1 or recipe.steps == 1:
                _weights_moved(before, parameters)
            on_step(steps[-1])
    except (KeyboardInterrupt, Terminated) as stop:
        stopped = "terminated" if isinstance(stop, Terminated) else "interrupted"
        if updates > len(steps):  # stopped within an update
            _restore(parameters, proven)
    finally:
        base.model.eval()
        for tensor in parameters.values():
            tensor.requires_grad_(False)
            tensor.grad = None
    if stopped == "diverged" or not _all_finite(parameters):
        # The last update is what broke it, so the adapter goes back to before that one.
        _restore(parameters, proven)
        return Outcome(steps=tuple(steps[:-1]), stopped="diverged")
    return Outcome(steps=tuple(steps), stopped=stopped)


def _all_finite(parameters: dict[str, Any]) -> bool:
    import torch

    return all(bool(torch.isfinite(tensor).all()) for tensor in parameters.values())


def _copy(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def _restore(parameters: dict[str, Any], kept: dict[str, Any]) -> None:
    for name, tensor in parameters.items():
        tensor.data.copy_(kept[name])


def _backward(
    recipe: Recipe, base: LoadedBase, objective: Objective, batch: list[Example]
) -> float:
    """Accumulate the gradient of the batch's mean loss a token; return that loss."""
    import torch

    part = len(batch) // recipe.accumulate
    wanted = sum(len(example.ids) - example.answer_start for example in batch)
    total = 0.0
    for start in range(0, len(batch), part):
        rows = collate(
            batch[start : start + part], pad=base.tokenizer.pad_token_id, device=base.device
        )
        with (
            quiet(),
            torch.autocast(
                device_type=base.device.partition(":")[0],
                dtype=torch.bfloat16,
                enabled=base.device.startswith("cuda"),
            ),
        ):
            loss, _ = objective.loss(base.model, rows)
        (loss / wanted).backward()
        total += loss.item()
    return total / wanted


def _only_these_train(base: LoadedBase, parameters: dict[str, Any]) -> None:
    base.model.requires_grad_(False)
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    if not parameters:
        raise TrainingError("the adapter has nothing to train", hint="choose other --targets")


def _gradients_flow(norm: float) -> None:
    if norm == 0:
        raise TrainingError(
            "no gradient reaches the adapter, so it would learn nothing",
            hint="are the answers of the data empty, or the --targets not part of this base?",
        )


def _weights_moved(before: dict[str, Any], parameters: dict[str, Any]) -> None:
    import torch

    still = [name for name, tensor in parameters.items() if torch.equal(before[name], tensor)]
    if len(still) == len(parameters):
        raise TrainingError(
            "no weight has changed, so the run would learn nothing",
            hint="raise --lr",
        )
