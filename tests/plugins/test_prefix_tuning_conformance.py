"""Prefix tuning keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestPrefixTuning(MethodConformance):
    method = "prefix_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 4}
    bases = QUICK


@pytest.mark.long
class TestPrefixTuningOnTheOtherBases(TestPrefixTuning):
    bases = OTHERS


class TestProjectedPrefixTuning(MethodConformance):
    method = "prefix_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 5, "projection": True, "hidden": 24}
    bases = (("llama", "bf16"), ("mistral", "nf4"))
