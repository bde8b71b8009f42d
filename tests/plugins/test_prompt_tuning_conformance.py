"""Prompt tuning keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestPromptTuning(MethodConformance):
    method = "prompt_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 4}
    bases = QUICK


@pytest.mark.long
class TestPromptTuningOnTheOtherBases(TestPromptTuning):
    bases = OTHERS


class TestPromptTuningFromText(MethodConformance):
    method = "prompt_tuning"
    options: ClassVar[Mapping[str, Any]] = {"tokens": 5, "text": "Say it in Korean."}
    seeded = False
    bases = (("mistral", "bf16"),)
