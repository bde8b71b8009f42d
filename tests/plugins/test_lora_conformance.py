"""LoRA keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestLora(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {"rank": 4}
    bases = QUICK


@pytest.mark.long
class TestLoraOnTheOtherBases(TestLora):
    bases = OTHERS


class TestRankStabilisedLoraOnAttentionOnly(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {
        "rank": 3,
        "alpha": 5,
        "rslora": True,
        "targets": "attention",
    }
    bases = (("mistral", "bf16"),)
