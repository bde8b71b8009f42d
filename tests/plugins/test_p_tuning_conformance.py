"""P-tuning keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance

pytestmark = pytest.mark.models


class TestPTuning(MethodConformance):
    method = "p_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 4}
    bases = tuple(product(("llama", "phi3", "qwen2", "gpt2"), ("bf16", "nf4")))


class TestPTuningThroughANarrowNetwork(MethodConformance):
    method = "p_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 1, "hidden": 24}
    bases = (("mistral", "bf16"),)
