"""Norm tuning keeps every promise of a method, with and without biases."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance

pytestmark = pytest.mark.models


class TestLnTuning(MethodConformance):
    method = "ln_tuning"
    seeded = False
    bases = tuple(product(("llama", "phi3", "qwen2", "gpt2"), ("bf16", "nf4")))


class TestLnTuningOfOneBlock(MethodConformance):
    method = "ln_tuning"
    seeded = False
    options: ClassVar[Mapping[str, Any]] = {"layers": "0"}
    bases = (("mistral", "bf16"),)
