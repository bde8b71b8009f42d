"""The machine truth of an adapter, `adapterhub.json`, as a value.

What is not known is None and is called unknown; nothing here is ever guessed silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapterhub.domain.base import Fingerprint
from adapterhub.domain.centroid import Centroid
from adapterhub.domain.probe import Golden, Probe
from adapterhub.domain.quantization import Scheme

SCHEMA_VERSION = 1
MANIFEST_FILE = "adapterhub.json"
CARD_FILE = "README.md"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
COMPOSITION_FILE = "composition.toml"
# In the place of a method: a whole model that adapters were merged into.
MERGED = "merged"
# Every tensor of a stored PEFT adapter is named by this and then the module it belongs to.
PEFT_PREFIX = "base_model.model."
# What the strategy of an adapter that was made from one other means.
CONVERSIONS = {
    "canonical": "converted to plain factors, scaled by 1",
    "to-fused": "converted for a base with fused layers",
    "to-split": "converted for a base with split layers",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseRecord:
    """The base an adapter was made for; `scheme` is what it was trained on."""

    id: str
    revision: str | None = None
    family: str | None = None
    fingerprint: Fingerprint | None = None
    scheme: Scheme | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """An adapter this one was made from, pinned by the sha256 of its weights, or of its config's
    canonical JSON where its method has none. `scales` are what some of its modules had beside its
    weight, by pattern."""

    ref: str
    weight: float
    sha256: str
    scales: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginRecord:
    """The distribution that provided the adapter's method, where that is not adapterhub itself."""

    distribution: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One measured figure, as `eval` printed it."""

    task: str
    metric: str
    score: float
    base_score: float
    n: int
    task_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything known of an adapter. `inferred` marks one built from a foreign adapter's files.

    `recipe` and `data_sha256` say how it was trained, `parents` and `strategy` what it was stacked
    from, `allowed` which checks its maker switched off; `probe` what it did to its base then,
    `golden` what it answered, and `centroid` what the prompts it was trained on have in common.
    """

    method: str
    config_version: int
    base: BaseRecord
    schema_version: int = SCHEMA_VERSION
    plugin: PluginRecord | None = None
    trainer: str | None = None
    recipe: dict[str, Any] | None = None
    data_sha256: str | None = None
    parents: tuple[Parent, ...] = ()
    strategy: str | None = None
    results: tuple[Result, ...] = ()
    allowed: tuple[str, ...] = ()
    probe: Probe | None = None
    golden: tuple[Golden, ...] = ()
    centroid: Centroid | None = None
    written_by: str | None = None
    inferred: bool = False
