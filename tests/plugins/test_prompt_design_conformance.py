"""Prompt design keeps the promises of a method, on every family and a quantized base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestPromptDesign(MethodConformance):
    method = "prompt_design"
    options: ClassVar[Mapping[str, Any]] = {
        "system": "Spell it backwards.",
        "examples": [{"prompt": "dog", "completion": "god"}],
        "template": "Word: {prompt}",
    }
    bases = QUICK


@pytest.mark.long
class TestPromptDesignOnTheOtherBases(TestPromptDesign):
    bases = OTHERS
