"""The hooks: what a plugin may declare.

Hooks declare, records describe, lazy references do. Each hook is called once, when the catalog is
first needed, takes no arguments and returns a list of records; declaring must not import torch,
touch the network or read files. Only `adapterhub_open_store` answers a question.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.domain.destination import Destination
from adapterhub.domain.method import Method, QuantBackend, Strategy, Task, Trainer
from adapterhub.domain.stores import Store
from adapterhub.plugin.markers import hookspec


@hookspec
def adapterhub_methods() -> Sequence[Method]:
    """Adaptation methods, such as `lora`."""
    raise AssertionError("a specification is not called")


@hookspec
def adapterhub_trainers() -> Sequence[Trainer]:
    """Trainers, such as `sft`: what a run minimises."""
    raise AssertionError("a specification is not called")


@hookspec
def adapterhub_backends() -> Sequence[QuantBackend]:
    """Quantization backends, such as `bnb`. Two that claim one scheme are refused."""
    raise AssertionError("a specification is not called")


@hookspec
def adapterhub_strategies() -> Sequence[Strategy]:
    """Composition strategies, such as `linear` and `svd`."""
    raise AssertionError("a specification is not called")


@hookspec
def adapterhub_tasks() -> Sequence[Task]:
    """Named tasks that `eval --task NAME` and `train --task NAME` know."""
    raise AssertionError("a specification is not called")


@hookspec
def adapterhub_destinations() -> Sequence[Destination]:
    """Servers and formats that an adapter can go to: their rules and, for some, an exporter."""
    raise AssertionError("a specification is not called")


@hookspec(firstresult=True)
def adapterhub_open_store(uri: str) -> Store | None:
    """A store for this URI, or None to leave it to another plugin. Must not touch the network.

    Called whenever a remote is used; stops at the first plugin that answers.
    """
