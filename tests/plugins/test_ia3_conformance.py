"""(IA)^3 keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance

pytestmark = pytest.mark.models


class TestIa3(MethodConformance):
    method = "ia3"
    seeded = False
    bases = tuple(product(("llama", "phi3", "qwen2", "gpt2"), ("bf16", "nf4")))


class TestIa3OnKeysAndValuesOfOneBlock(MethodConformance):
    method = "ia3"
    seeded = False
    options: ClassVar[Mapping[str, Any]] = {"feedforward": False, "layers": [1]}
    bases = (("mistral", "bf16"), ("phi3", "bf16"))
