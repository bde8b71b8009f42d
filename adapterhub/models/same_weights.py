"""Are these the weights of that base, give or take a quantization? Asked of a sample of rows.

The rows are chosen by a seed among the linear weights that both have, whatever they are called and
however they are fused. Equal norms are `fingerprint`'s; what follows from both is `matching`'s.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from adapterhub.domain.layout import canonical_names, section_rows
from adapterhub.models.base_files import Weights
from adapterhub.models.stored_values import matrix_shape, read_rows

WEIGHTS, ROWS = 8, 4  # some 30 to 130 thousand values of a model of usual width
_SLACK = 1e-6  # of the values' size: sums in float32 in somebody's quantizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """`values` were compared, `outside` of them differ by more than rounding explains; `worst` is
    the largest difference in units of the formats' published error bound. No values: nothing could
    be compared."""

    values: int
    outside: int
    worst: float

    @property
    def agree(self) -> bool:
        return self.values > 0 and self.outside == 0


@dataclass(frozen=True, slots=True)
class _Section:
    """A canonical weight inside a stored one: its rows begin at `start`."""

    tensor: str
    start: int
    rows: int
    width: int


def compare_weights(one: Weights, other: Weights, *, seed: int = 0) -> Sampled:
    """Compare a sample; two stored values agree where one weight may have been rounded to both."""
    chooser = random.Random(seed)
    left, right = _linear(one), _linear(other)
    common = sorted(set(left) & set(right))
    values = outside = 0
    worst = 0.0
    for name in chooser.sample(common, min(WEIGHTS, len(common))):
        a, b = _section(one, left[name], name), _section(other, right[name], name)
        if a is None or b is None or (a.rows, a.width) != (b.rows, b.width):
            continue
        rows = sorted(chooser.sample(range(a.rows), min(ROWS, a.rows)))
        found = _compare(one, a, other, b, rows)
        values += found.values
        outside += found.outside
        worst = max(worst, found.worst)
    return Sampled(values=values, outside=outside, worst=worst)


def _linear(weights: Weights) -> dict[str, str]:
    """Canonical name -> stored tensor, of the matrices inside the blocks."""
    return {
        name: tensor
        for tensor in weights.places
        if tensor.endswith(".weight") and len(weights.places[tensor].info.shape) == 2
        for name in canonical_names(tensor)
        if any(part.isdigit() for part in name.split("."))
    }


def _section(weights: Weights, tensor: str, name: str) -> _Section | None:
    """None where a fused tensor cannot be divided."""
    rows, width = matrix_shape(weights, tensor)
    names = canonical_names(tensor)
    parts = section_rows(rows, len(names), weights.heads)
    if parts is None:
        return None
    place = names.index(name)
    return _Section(tensor, sum(parts[:place]), parts[place], width)


def _compare(
    one: Weights, a: _Section, other: Weights, b: _Section, rows: Sequence[int]
) -> Sampled:
    left = read_rows(one, a.tensor, [a.start + row for row in rows])
    right = read_rows(other, b.tensor, [b.start + row for row in rows])
    slack = _SLACK * (left.value.abs() + right.value.abs())
    apart = (left.low - slack > right.high) | (right.low - slack > left.high)
    difference = (left.value - right.value).abs()
    bound = (left.bound + right.bound + slack).clamp_min(1e-30)
    # A NaN is inside of nothing, so what is not known to agree counts as outside.
    outside = apart | ~difference.isfinite()
    return Sampled(
        values=difference.numel(),
        outside=int(outside.sum()),
        worst=float((difference / bound).max()),
    )
