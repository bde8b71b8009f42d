"""Norm tuning keeps every promise of a method, with and without biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestLnTuning(MethodConformance):
    method = "ln_tuning"
    seeded = False
    bases = QUICK


@pytest.mark.long
class TestLnTuningOnTheOtherBases(TestLnTuning):
    bases = OTHERS


class TestLnTuningOfOneBlock(MethodConformance):
    method = "ln_tuning"
    seeded = False
    options: ClassVar[Mapping[str, Any]] = {"layers": "0"}
    bases = (("mistral", "bf16"),)
