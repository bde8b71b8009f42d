"""Prompt design keeps the promises of a method, on every family and a quantized base."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import pytest

from adapterhub.testing import MethodConformance

pytestmark = pytest.mark.models


class TestPromptDesign(MethodConformance):
    method = "prompt_design"
    options: ClassVar[Mapping[str, Any]] = {
        "system": "Spell it backwards.",
        "examples": [{"prompt": "dog", "completion": "god"}],
        "template": "Word: {prompt}",
    }
    bases = tuple(product(("llama", "phi3", "qwen2", "gpt2"), ("bf16", "nf4")))
