"""Send a run's figures, step by step, to TensorBoard or trackio.

Each is an optional extra, asked for before a run costs anything and opened at its first step. Knows
steps as values; how they are made is the loop's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from adapterhub.errors import MissingExtraError, UsageError
from adapterhub.models.quiet import quiet
from adapterhub.train.progress import Step

PROJECT = "adapterhub"
RUNS_FOLDER = "runs"  # where `tensorboard --logdir runs` looks


class Logger(Protocol):
    """Where the figures of a run go. `place` says so to people."""

    @property
    def place(self) -> str: ...

    def step(self, step: Step) -> None: ...

    def close(self) -> None:
        """Write what is still held back; a second call does nothing."""


def check_logger(kind: str) -> None:
    """Raises MissingExtraError when its package is not installed, UsageError for another kind."""
    if kind not in _KINDS:
        raise UsageError(f"no log is called {kind!r}", hint=f"use {' or '.join(_KINDS)}")
    if find_spec(kind) is None:
        raise MissingExtraError(kind, needed_for=f"--log {kind}")


@contextmanager
def open_logger(kind: str, *, out: Path, settings: Mapping[str, Any]) -> Iterator[Logger]:
    """The logger of a run into the folder `out`, with its recipe as `settings`; closed however the
    block ends. Raises what `check_logger` does."""
    check_logger(kind)
    logger: Logger = _KINDS[kind](out=out.absolute(), settings=settings)
    try:
        yield logger
    finally:
        logger.close()


def scalars(step: Step, before: Step | None) -> dict[str, float]:
    """The figures of a step. Tokens a second are those since the step `before`."""
    seconds = step.seconds - (before.seconds if before else 0.0)
    tokens = step.tokens - (before.tokens if before else 0)
    named = {
        "loss": step.loss,
        "eval_loss": step.eval_loss,
        "gradient_norm": step.gradient_norm,
        "learning_rate": step.learning_rate,
        "tokens_per_second": tokens / seconds if seconds > 0 else None,
    }
    return {name: value for name, value in named.items() if value is not None}


@dataclass(kw_only=True)
class TensorBoard:
    """Event files in `runs/` beside the adapter's folder, under its name."""

    out: Path
    settings: Mapping[str, Any]
    _writer: Any = field(default=None, init=False)
    _before: Step | None = field(default=None, init=False)

    @property
    def place(self) -> str:
        return str(self.out.parent / RUNS_FOLDER / self.out.name)

    def step(self, step: Step) -> None:
        if self._writer is None:
            self._writer = self._open(step.number)
        for name, value in scalars(step, self._before).items():
            self._writer.add_scalar(f"train/{name}", value, step.number)
        self._before = step

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, first: int) -> Any:
        with quiet():
            from torch.utils.tensorboard import SummaryWriter

            # What a stopped run wrote of this step and later ones is no longer shown.
            writer = SummaryWriter(self.place, purge_step=first)
        lines = (f"    {name} = {value!r}" for name, value in self.settings.items())
        writer.add_text("recipe", "\n".join(lines), first)
        return writer


@dataclass(kw_only=True)
class Trackio:
    """A run of the project `adapterhub`, kept where trackio keeps them."""

    out: Path
    settings: Mapping[str, Any]
    _run: Any = field(default=None, init=False)
    _before: Step | None = field(default=None, init=False)

    @property
    def place(self) -> str:
        return f"project {PROJECT}, run {self.out.name}"

    def step(self, step: Step) -> None:
        if self._run is None:
            self._run = self._open(step.number)
        self._run.log(scalars(step, self._before), step=step.number)
        self._before = step

    def close(self) -> None:
        if self._run is None:
            return
        self._run = None
        with _talking():
            import trackio

            # Of the module: a run that is finished by itself is finished again at exit, on stdout.
            trackio.finish()

    def _open(self, first: int) -> Any:
        with _talking():
            import trackio

            return trackio.init(
                project=PROJECT,
                name=self.out.name,
                config=dict(self.settings),
                resume="never" if first == 1 else "allow",
            )


@contextmanager
def _talking() -> Iterator[None]:
    """trackio prints on stdout, which is for data."""
    with quiet(), redirect_stdout(sys.stderr):
        yield


_KINDS: Mapping[str, Callable[..., Logger]] = {"tensorboard": TensorBoard, "trackio": Trackio}
