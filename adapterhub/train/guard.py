"""What a run proves of itself: labels exist, gradients flow, exactly the adapter's weights move.

Knows tensors, losses and signals; whose they are is the loop's business.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from adapterhub.domain.protocols import Example, LoadedBase
from adapterhub.errors import DataError, TrainingError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TIMES, _IN_A_ROW = 10.0, 5


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
    """Five steps in a row with a loss above ten times the first, which counts as 1 if lower.

    One such batch may be a row that is plainly wrong; five of them are a model that is lost.
    """

    first: float | None = None
    streak: int = 0

    def suspect(self, loss: float) -> bool:
        """Whether this loss is part of such a row."""
        if self.first is None:
            self.first = loss
        above = loss > _TIMES * max(self.first, 1.0)
        self.streak = self.streak + 1 if above else 0
        return above

    @property
    def certain(self) -> bool:
        return self.streak >= _IN_A_ROW


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
            "no gradient reaches the adapter, so it would learn nothing",
            hint="are the answers of the data empty, or the --targets not part of this base?",
        )
    ours = {id(tensor) for tensor in parameters.values()}
    for name, tensor in base.parameters().items():
        if id(tensor) not in ours and (tensor.requires_grad or tensor.grad is not None):
            raise TrainingError(
                f"{name} of the base would train too, which is to stay frozen",
                hint="tell the author of the method's plugin",
            )


def any_moved(before: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    import torch

    return any(not torch.equal(before[name], tensor) for name, tensor in parameters.items())


def nothing_moved() -> TrainingError:
    return TrainingError("no weight has changed, so the run would learn nothing", hint="raise --lr")


def all_finite(parameters: Mapping[str, Any]) -> bool:
    import torch

    return all(bool(torch.isfinite(tensor).all()) for tensor in parameters.values())
