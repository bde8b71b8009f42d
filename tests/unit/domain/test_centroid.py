"""Promises of centroids: what is stored is what was measured, and the nearest one is found."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.domain.centroid import Centroid, nearest, pack

UNIT = (0.6, -0.8, 0.0)


def centroid(vector: tuple[float, ...] = UNIT, **changes: Any) -> Centroid:
    facts = {
        "values": pack(vector), "dimension": len(vector), "prompts": 3, "layer": 1,
        "base": "b", "rule": "r",
    }  # fmt: skip
    return Centroid(**{**facts, **changes})


def test_the_values_are_little_endian_float16_in_base64() -> None:
    assert base64.b64decode(pack(UNIT)) == struct.pack("<3e", *UNIT)
    assert centroid().vector == pytest.approx(UNIT, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"values": "!!!!"}, "not base64"),
        ({"values": pack((1.0, 0.0))}, "holds 4 bytes, and its dimension calls for 6"),
        ({"values": pack((2.0, 0.0, 0.0))}, "not of length 1"),
        ({"values": pack((math.nan, 0.0, 0.0))}, "not of length 1"),
        ({"values": pack((math.inf, 0.0, 0.0))}, "not of length 1"),
        ({"values": "", "dimension": 0}, "needs a dimension"),
        ({"dimension": 1 << 40}, "needs a dimension"),
        ({"prompts": 0}, "a number of prompts"),
        ({"layer": -1}, "and a layer"),
    ],
)
def test_what_is_no_centroid_is_refused(changes: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        centroid(**changes)


def test_the_nearest_has_the_largest_cosine_whatever_its_place() -> None:
    one, other = centroid((1.0, 0.0)), centroid((0.0, 1.0))
    for order, place in (((one, other), 1), ((other, one), 0)):
        found, cosines = nearest((0.6, 0.8), order)
        assert found == place
        assert sorted(cosines) == pytest.approx([0.6, 0.8], abs=1e-3)


def test_the_first_of_equal_ones_is_taken() -> None:
    assert nearest((1.0, 0.0), [centroid((0.0, 1.0)), centroid((0.0, -1.0))])[0] == 0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40).filter(lambda v: math.hypot(*v) > 0.1))
def test_every_direction_is_kept_to_a_thousandth(values: list[float]) -> None:
    unit = tuple(value / math.hypot(*values) for value in values)
    assert nearest(unit, [centroid(unit)])[1][0] == pytest.approx(1, abs=2e-3)
