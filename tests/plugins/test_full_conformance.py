"""Full fine-tuning keeps every promise of a method that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance

pytestmark = pytest.mark.models


class TestFull(MethodConformance):
    method = "full"
    seeded = False
    bases = (("llama", "bf16"), ("phi3", "bf16"), ("qwen2", "bf16"), ("gpt2", "bf16"))


class TestFullOfTheBlocks(MethodConformance):
    method = "full"
    seeded = False
    options: ClassVar[Mapping[str, Any]] = {"parts": "layers"}
    bases = (("mistral", "bf16"), ("llama", "nf4"))
