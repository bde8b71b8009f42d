"""Where an adapter may go once it is made: a server or a file format, its rules and its exporter.

Values and protocols only. Facts are read from an adapter's files without a model in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from adapterhub.domain.base import BaseSpec

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """`target` provides `DestinationRules`; where `exports` names a format, `AdapterExporter` too.

    `about` is the release, or the date of the sources, that the rules were read from.
    """

    name: str
    summary: str
    target: str
    about: str
    exports: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one rule says of one adapter: `reason` is the fact, `fix` a command or an action.

    error: refused, or served as something else than was trained; warning: works on a condition, or
    nobody knows; ok: holds.
    """

    rule: str
    severity: Severity
    reason: str
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """One adapted module: W (out, in) + scaling * B (out, rank) A (rank, in).

    `shape` is (out, in), or None where the parts make no pair; `parts` are the stored names behind
    the module's, such as `lora_A.weight`.
    """

    rank: int
    alpha: float
    scaling: float
    shape: tuple[int, int] | None
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterFacts:
    """An adapter's files, read without torch. `name` is how a person named it.

    `family` is transformers' model type of its base, None where nobody recorded it; `modules` are
    those of a LoRA, `others` the tensors that are no part of one; `variant` is the config key by
    which it is more than plain LoRA.
    """

    name: str
    method: str
    base: str
    family: str | None
    config: Mapping[str, Any]
    modules: Mapping[str, LowRank]
    others: tuple[str, ...]
    dtypes: tuple[str, ...]
    files: tuple[str, ...]
    variant: str | None = None


class DestinationRules(Protocol):
    """What a destination accepts. Its target is called without arguments."""

    def check(self, facts: AdapterFacts) -> Iterable[Finding]:
        """One finding a rule, in the order a person should read them."""


class AdapterSource(Protocol):
    """A verified adapter to export. `base_config` is the base's config.json, or None where no such
    base is on this machine."""

    @property
    def facts(self) -> AdapterFacts: ...

    @property
    def folder(self) -> Path: ...

    @property
    def base_config(self) -> Mapping[str, Any] | None: ...

    def pairs(self) -> Iterator[tuple[str, Any, Any]]:
        """(module, A (rank, in), B (out, rank)) in float32 on the CPU, B without its scaling."""


class BaseSource(Protocol):
    """A stored base to export. `file` is the GGUF file it was made from, if it was."""

    @property
    def spec(self) -> BaseSpec: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def file(self) -> Path | None: ...

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """(parameter, float32 on the CPU): what the stored bytes stand for, tied ones once."""


class AdapterExporter(DestinationRules, Protocol):
    """A destination that writes its own format; asked only when no rule finds an error."""

    def export(self, source: AdapterSource, out: Path) -> Iterable[str]:
        """Write the file or folder `out`, which does not exist. Answers what a person should know,
        such as what was left out. Raises CapabilityError for what the format cannot hold."""


class BaseExporter(Protocol):
    """An exporter that can write a whole base as well."""

    def export_base(self, source: BaseSource, out: Path) -> None:
        """Raises CapabilityError for a base that the format, or the exporter, cannot hold."""
