"""What a run proves of itself: labels exist, gradients flow, exactly the adapter's weights move.

Knows tensors, losses and signals; whose they are is the loop's business.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.protocols import Example, LoadedBase
from adapterhub.errors import DataError, TrainingError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TIMES, _IN_A_ROW = 10.0, 5
_CLIMB, _LOST, _WINDOW = 2.0, 20, 5
_NAMED = 3


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block has ended: half an update is worth nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals only ever interrupt the main thread
        return
    waiting: list[tuple[int, Any]] = []
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    ours: dict[int, Any] = {n: h for n, h in handlers.items() if callable(h)}
    for number in ours:
        signal.signal(number, lambda *received: waiting.append(received))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for number, frame in waiting[:1]:
            ours[number](number, frame)


@dataclass
class Explosion:
    """Whether a run is lost, by its losses alone, each taken before an update.

    It is lost after five steps in a row with a loss above ten times the first, which counts as 1 if
    lower: one such batch may be a row that is plainly wrong, five are not. It is lost as well after
    twenty in a row that are above twice the mean of the first five, and not `calm`: a model that
    says the same whatever it is asked has no higher loss than that.
    """

    first: float | None = None
    streak: int = 0
    worse: int = 0
    calm: bool = True
    level: float = math.inf
    start: float = math.inf
    recent: list[float] = field(default_factory=list)

    def see(self, loss: float) -> None:
        """`calm` says afterwards whether what had this loss is worth going back to: it is at most
        twice the lowest mean of five in a row before it, so that a slow climb is seen as well.
        What is above ten times the first is in no mean."""
        if self.first is None:
            self.first = loss
        floor = max(self.first, 1.0)
        level = self.level if self.recent[_WINDOW - 1 :] else _mean(self.recent or [loss])
        self.calm = loss <= max(_CLIMB * level, 0.1 * floor)
        self.streak = self.streak + 1 if loss > _TIMES * floor else 0
        if self.streak:
            self.calm = False
            self.worse += 1
            return
        far = loss > _CLIMB * max(self.start, 1.0) and not self.calm
        self.worse = self.worse + 1 if far else 0
        self.recent = [*self.recent, loss][-_WINDOW:]
        if len(self.recent) == _WINDOW:
            mean = _mean(self.recent)
            self.level = min(self.level, mean)
            self.start = mean if math.isinf(self.start) else self.start

    @property
    def certain(self) -> bool:
        return self.streak >= _IN_A_ROW or self.worse >= _LOST

    @property
    def ended_lost(self) -> bool:
        """Of a run without another step: there is no fifth one to wait for."""
        return self.certain or self.streak > 1


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)


def check_labels(examples: Sequence[Example], *, name: str) -> None:
    """Raises DataError for a row whose answer has no token: it would teach nothing."""
    for example in examples:
        if len(example.ids) <= example.answer_start:
            raise DataError(
                f"{name} line {example.line} has no answer to learn", hint="give it one or drop it"
            )


def only_these_train(base: LoadedBase, parameters: Mapping[str, Any]) -> None:
    """Raises TrainingError unless there is something to train."""
    if not parameters:
        raise TrainingError("the adapter has nothing to train", hint="choose other --targets")
    base.model.requires_grad_(False)
    for tensor in parameters.values():
        tensor.requires_grad_(True)


def check_gradients(base: LoadedBase, parameters: Mapping[str, Any], norm: float) -> None:
    """Raises TrainingError unless a gradient reached the adapter, and nothing else."""
    if norm == 0:
        raise TrainingError(
            f"no gradient reaches the adapter ({named(list(parameters))}), so it would learn "
            "nothing",
            hint="are the answers of the data empty, or the --targets not part of this base?",
        )
    ours = {id(tensor) for tensor in parameters.values()}
    for name, tensor in base.parameters().items():
        if id(tensor) not in ours and (tensor.requires_grad or tensor.grad is not None):
            raise TrainingError(
                f"{name} of the base would train too, which is to stay frozen",
                hint="tell the author of the method's plugin",
            )


def unreached(parameters: Mapping[str, Any]) -> frozenset[str]:
    """The names of those whose gradient is missing or zero."""
    return frozenset(
        name
        for name, tensor in parameters.items()
        if tensor.grad is None or not bool(tensor.grad.any())
    )


def named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def any_moved(before: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    import torch

    return any(not torch.equal(before[name], tensor) for name, tensor in parameters.items())


def nothing_moved() -> TrainingError:
    return TrainingError("no weight has changed, so the run would learn nothing", hint="raise --lr")


def all_finite(parameters: Mapping[str, Any]) -> bool:
    import torch

    return all(bool(torch.isfinite(tensor).all()) for tensor in parameters.values())
