"""How three libraries take an adapter into use, and how loud each is.

Knows no fault: told what to load, where and by which way.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from click.testing import CliRunner

from adapterhub.cli.commands.verify import verify
from adapterhub.errors import AdapterhubError
from adapterhub.hub.folder import read_folder
from adapterhub.runtime.resolve import Fetched, resolve_subject
from adapterhub.runtime.subjects import attach_subject
from adapterhub.testing.tiny import temporary_home
from adapterhub.trust.effect import check_effect, measure_effect
from tests.faults.fault import Use
from tests.faults.ground import Ground

Load = Callable[["Case"], Any]
Kind = Literal["raise", "warn", "silent", "-"]


@dataclass(frozen=True)
class Outcome:
    """`warn` is anything said while going on; `-` is what a library has no word for."""

    kind: Kind
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """`folder` is put on the base called `base`; `beside` is a sound adapter."""

    ground: Ground
    folder: Path
    base: str
    use: Use
    beside: Path


def by_peft(case: Case) -> Any:
    from peft import PeftModel

    bare = _bare(case.ground, case.base)
    if case.use == "load":
        return PeftModel.from_pretrained(bare, str(case.folder))
    model = PeftModel.from_pretrained(bare, str(case.beside))
    model.load_adapter(str(case.folder), adapter_name="second")
    if case.use == "by-name":
        model.set_adapter("second")
    return model


def by_transformers(case: Case) -> Any:
    model = _bare(case.ground, case.base)
    if case.use == "load":
        model.load_adapter(str(case.folder))
        return model
    model.load_adapter(str(case.beside))
    model.load_adapter(str(case.folder), adapter_name="second")
    # transformers activates what it loads, so staying with the first takes a word.
    model.set_adapter("second" if case.use == "by-name" else "default")
    return model


def by_us(case: Case) -> Outcome:
    """What `adapterhub verify --base` says, or what using it does where there is no file to
    verify. Raises what is no error of ours: a crash is no finding."""
    with temporary_home(case.ground.home):
        if case.use == "asleep":
            return _refused(lambda: _asleep(case))
        if case.use == "compose":
            return _refused(lambda: _resolved(case))
        arguments = [str(case.folder), "--base", case.base, "--device", "cpu"]
        done = CliRunner().invoke(verify, arguments)
    if done.exception is None:
        return Outcome("warn", done.output)
    if not isinstance(done.exception, AdapterhubError):
        raise done.exception
    return Outcome("raise", f"{done.output}\n{done.exception.message}")


def _asleep(case: Case) -> None:
    """An adapter that stays out of the answer although it was asked to take part."""
    engine = case.ground.engine(case.base)
    engine.rack.attach("asleep", read_folder(case.folder))
    try:
        engine.rack.attached["asleep"].activate = lambda weight=1.0: None  # type: ignore[method-assign]
        check_effect(measure_effect(engine, (("asleep", 1.0),)), case.folder.name)
    finally:
        engine.rack.detach("asleep")


def _resolved(case: Case) -> None:
    def fetch(ref: Any) -> Fetched:
        raise AssertionError(f"nothing is to be fetched, and {ref} was")

    rack = case.ground.engine(case.base).rack
    attach_subject(rack, resolve_subject(str(case.folder), fetch))


def _refused(use: Callable[[], None]) -> Outcome:
    try:
        use()
    except AdapterhubError as error:
        return Outcome("raise", error.message)
    return Outcome("silent")


def heard(load: Load, case: Case, *, usual: Collection[str]) -> Outcome:
    """Load and ask once; a library has said what it does not say of a sound adapter."""
    if case.use == "compose":
        return Outcome("-")
    try:
        found = [text for text in said_by(load, case) if text not in usual]
    except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer
        return Outcome("raise", f"{type(error).__name__}: {error}".splitlines()[0])
    return Outcome("warn", found[0]) if found else Outcome("silent")


def said_by(load: Load, case: Case) -> list[str]:
    """Every warning and log record of loading an adapter and asking the model once."""
    if case.use == "compose":
        return []
    with listening() as said, torch.no_grad():
        load(case).eval()(input_ids=torch.arange(16)[None], use_cache=False)
    return said


@cache
def _loaded(source: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()


def _bare(ground: Ground, base: str) -> Any:
    ground.spec(base)
    return copy.deepcopy(_loaded(ground.source(base)))


@contextmanager
def listening() -> Iterator[list[str]]:
    """Every warning and every log record from WARNING on, as it comes."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear = Ear(level=logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("peft", "transformers")]
    states = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(ear)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
            said.extend(str(entry.message) for entry in caught)
    finally:
        for logger, level, propagate in states:
            logger.removeHandler(ear)
            logger.setLevel(level)
            logger.propagate = propagate
