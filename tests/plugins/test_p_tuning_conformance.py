"""P-tuning keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestPTuning(MethodConformance):
    method = "p_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 4}
    bases = QUICK


@pytest.mark.long
class TestPTuningOnTheOtherBases(TestPTuning):
    bases = OTHERS


class TestPTuningThroughANarrowNetwork(MethodConformance):
    method = "p_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 1, "hidden": 24}
    bases = (("mistral", "bf16"),)
