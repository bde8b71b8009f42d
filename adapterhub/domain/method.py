"""Records that plugins declare: what exists, who made it, and where the code is.

A record's `target` is `module:attribute` and is imported only when it is used.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.base import Modality


class Capability(enum.StrEnum):
    """Promises of a method, each checked by the conformance kit."""

    TRAIN = "train"
    IDENTITY_START = "identity-start"
    MERGE = "merge"
    STACK = "stack"
    QUANTIZED_BASE = "quantized-base"
    MIXED_BATCH = "mixed-batch"
    MODULE_WEIGHTS = "module-weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """`target` provides `adapterhub.domain.protocols.AdapterMethod`; `reference` is the paper.

    `options` says what `-O` takes: name -> a line with its default and its meaning. `tensors` says
    whether its adapters hold weights. `preset` sets fields of the recipe that a person left alone,
    such as the learning rate that is usual for it. A method that is no more than a preset makes
    adapters of another, `stored_as`.
    """

    name: str
    summary: str
    target: str
    reference: str
    config_version: int
    capabilities: frozenset[Capability]
    tensors: bool = True
    stored_as: str | None = None
    preset: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainer:
    """`target` provides `adapterhub.domain.protocols.Objective`; `teacher` says whether it learns
    from one, `options` what `--trainer-option` takes, as in `Method`."""

    name: str
    summary: str
    target: str
    modality: Modality
    teacher: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantBackend:
    """`target` provides `adapterhub.domain.protocols.Backend`; `schemes` are those it stores."""

    name: str
    summary: str
    target: str
    schemes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """`target` provides `adapterhub.domain.protocols.Combine`; exact ones give the weighted sum.

    `options` says which numbers it takes, as in `Method`. A `full_rank` one keeps the sum of all
    ranks where none is asked for, others the largest that came in.
    """

    name: str
    summary: str
    target: str
    reference: str
    exact: bool
    options: Mapping[str, str] = field(default_factory=dict)
    full_rank: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """`target` provides `adapterhub.domain.protocols.TaskSource`."""

    name: str
    summary: str
    target: str
    modality: Modality = "causal-lm"
