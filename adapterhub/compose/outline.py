"""What is known of an adapter before any of its tensors is read.

Plain values; `adapterhub.compose.members` fills them from a file's header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapterhub.domain.centroid import Centroid
from adapterhub.domain.manifest import BaseRecord


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
    """One member: its weight, its base, and the low-rank deltas it consists of by module name.

    `stackable` says whether its method promises to work beside others, `unmergeable` why it is more
    than its deltas, so that it can be attached and not merged. `centroid` is that of its manifest.
    """

    ref: str
    weight: float
    method: str
    stackable: bool
    base: BaseRecord
    sites: Mapping[str, Site]
    unmergeable: str | None = None
    centroid: Centroid | None = None
