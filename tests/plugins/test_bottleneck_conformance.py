"""Bottlenecks keep every promise of a method, wherever they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestBottleneck(MethodConformance):
    method = "bottleneck"
    bases = QUICK


@pytest.mark.long
class TestBottleneckOnTheOtherBases(TestBottleneck):
    bases = OTHERS


class TestHoulsby(MethodConformance):
    method = "bottleneck"
    options: ClassVar[Mapping[str, Any]] = {"placement": "houlsby", "nonlinearity": "gelu"}
    bases = (("phi3", "nf4"), ("gpt2", "bf16"))


class TestParallel(MethodConformance):
    method = "bottleneck"
    options: ClassVar[Mapping[str, Any]] = {
        "placement": "parallel",
        "reduction": 2,
        "nonlinearity": "silu",
        "layers": "0-1",
    }
    bases = (("mistral", "bf16"), ("phi3", "nf4"))
