"""What the prompts that an adapter was trained on have in common, as one direction.

Values and cosines only; how a prompt becomes a vector is for `adapterhub.runtime.embedding`.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_WIDEST = 1 << 16
# What rounding a unit vector to float16 leaves of its length.
_LENGTH = (0.99, 1.01)


@dataclass(frozen=True, kw_only=True, slots=True)
class Centroid:
    """The mean of the embeddings of `prompts` training prompts, of length 1. `values` is base64 of
    `dimension` little-endian float16 numbers. `layer` counts the base's blocks whose output was
    read, `base` is the content digest of its fingerprint, `rule` the digest of how prompts are
    embedded."""

    values: str
    dimension: int
    prompts: int
    layer: int
    base: str
    rule: str

    def __post_init__(self) -> None:
        """Raises ValueError, which whoever reads a file turns into an error that names it."""
        if not 1 <= self.dimension <= _WIDEST or self.prompts < 1 or self.layer < 0:
            raise ValueError("a centroid needs a dimension, a number of prompts and a layer")
        try:
            packed = base64.b64decode(self.values, validate=True)
        except ValueError:
            raise ValueError("the values of a centroid are not base64") from None
        if len(packed) != 2 * self.dimension:
            raise ValueError(
                f"a centroid holds {len(packed)} bytes, and its dimension calls for "
                f"{2 * self.dimension}"
            )
        if not _LENGTH[0] <= math.hypot(*self.vector) <= _LENGTH[1]:
            raise ValueError("a centroid is not of length 1")

    @property
    def vector(self) -> tuple[float, ...]:
        return struct.unpack(f"<{self.dimension}e", base64.b64decode(self.values))


def pack(vector: Sequence[float]) -> str:
    """The `values` of a centroid."""
    return base64.b64encode(struct.pack(f"<{len(vector)}e", *vector)).decode()


def nearest(
    vector: Sequence[float], centroids: Sequence[Centroid]
) -> tuple[int, tuple[float, ...]]:
    """Which centroid has the largest cosine to a vector of length 1, the first of equal ones, and
    all cosines."""
    cosines = tuple(
        math.fsum(x * y for x, y in zip(vector, centroid.vector, strict=True))
        for centroid in centroids
    )
    return cosines.index(max(cosines)), cosines
