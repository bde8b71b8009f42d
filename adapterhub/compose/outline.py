"""What is known of an adapter before any of its tensors is read.

Plain values; `adapterhub.compose.members` fills them from a file's header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapterhub.domain.centroid import Centroid
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.scales import ModuleWeights, Scales, module_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A low-rank delta at one module. `dtype` is torch's name, `mixed` when A and B differ."""

    rank: int
    out_features: int
    in_features: int
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        return (self.out_features, self.in_features)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """One member: its weight and scales, its base, and the low-rank deltas it consists of by module
    name.

    `stackable` says whether its method promises to work beside others, `scalable` to take a weight
    for each module, `unmergeable` why it is more than its deltas, so that it can be attached and
    not merged. `modules` are all that it changes, where its file tells. `centroid` is that of its
    manifest.
    """

    ref: str
    weight: float
    method: str
    stackable: bool
    base: BaseRecord
    sites: Mapping[str, Site]
    unmergeable: str | None = None
    centroid: Centroid | None = None
    scales: Scales = field(default_factory=dict)
    scalable: bool = False
    modules: tuple[str, ...] | None = None

    @property
    def weights(self) -> ModuleWeights:
        """At each of its low-rank deltas. Raises UsageError as `module_weights` does."""
        return module_weights(self.ref, weight=self.weight, scales=self.scales, modules=self.sites)
