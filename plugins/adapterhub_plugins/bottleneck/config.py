"""Where bottlenecks stand and how they are made: options to the stored config, and back.

Knows placements and numbers; a base's sublayers are the method's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from adapterhub.domain import options as read
from adapterhub.domain.attached import check_keys
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.sites import SiteKind
from adapterhub.errors import UsageError
from adapterhub_plugins.bottleneck import OPTIONS

Nonlinearity = Literal["relu", "gelu", "silu", "tanh"]
NONLINEARITIES: tuple[Nonlinearity, ...] = ("relu", "gelu", "silu", "tanh")

# houlsby (arXiv 1902.00751), pfeiffer (arXiv 2005.00052), parallel (arXiv 2110.04366)
PLACEMENTS: dict[str, tuple[SiteKind, ...]] = {
    "pfeiffer": ("mlp",),
    "houlsby": ("attention", "mlp"),
    "parallel": ("mlp",),
}
# The best scaling of the paper's scaled parallel adapter.
_PARALLEL_SCALING = 4.0
_HEAD = ("method", "base_model_name_or_path", "revision")


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """`layers` are block numbers, or None for all; `scaling` multiplies what the module answers."""

    placement: str = "pfeiffer"
    reduction: int = 16
    nonlinearity: Nonlinearity = "relu"
    scaling: float = 1.0
    dropout: float = 0.0
    layers: tuple[int, ...] | None = None

    @property
    def kinds(self) -> tuple[SiteKind, ...]:
        return PLACEMENTS[self.placement]

    @property
    def reads(self) -> Literal["output", "input"]:
        return "input" if self.placement == "parallel" else "output"

    def width(self, hidden: int) -> int:
        return max(1, hidden // self.reduction)


def new_config(base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Raises UsageError for options that are unknown or make no sense."""
    read.refuse_unknown("bottleneck", options, OPTIONS)
    design = _design(options)
    if "scaling" in options and design.placement != "parallel":
        raise UsageError(
            f"a {design.placement} bottleneck has no scaling",
            hint='leave it out, or choose the placement "parallel"',
        )
    return {
        "method": "bottleneck",
        "base_model_name_or_path": base.id,
        "revision": None if base.revision.startswith("sha256:") else base.revision,
        "placement": design.placement,
        "reduction": design.reduction,
        "nonlinearity": design.nonlinearity,
        "scaling": design.scaling,
        "dropout": design.dropout,
        "layers": None if design.layers is None else list(design.layers),
    }


def design_of(config: Mapping[str, Any]) -> Design:
    """What a stored config says, held to the same rules as options are."""
    check_keys("bottleneck", config, (*OPTIONS, *_HEAD))
    return _design({key: config[key] for key in OPTIONS if config.get(key) is not None})


def _design(values: Mapping[str, Any]) -> Design:
    placement = read.choice(values, "placement", "pfeiffer", tuple(PLACEMENTS))
    usual = _PARALLEL_SCALING if placement == "parallel" else 1.0
    return Design(
        placement=placement,
        reduction=read.whole(values, "reduction", 16, least=1, most=65_536),
        nonlinearity=cast(
            Nonlinearity, read.choice(values, "nonlinearity", "relu", NONLINEARITIES)
        ),
        scaling=read.number(values, "scaling", usual, least=0.001, below=1000),
        dropout=read.number(values, "dropout", 0.0, least=0, below=1),
        layers=read.layer_numbers(values),
    )
