"""LoRA keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance

pytestmark = pytest.mark.models


class TestLora(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {"rank": 4}
    bases = tuple(product(("llama", "phi3", "qwen2", "gpt2"), ("bf16", "nf4")))


class TestRankStabilisedLoraOnAttentionOnly(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {
        "rank": 3,
        "alpha": 5,
        "rslora": True,
        "targets": "attention",
    }
    bases = (("mistral", "bf16"),)
