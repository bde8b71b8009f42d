"""(IA)^3 keeps every promise of a method, on split, fused, biased and transposed layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance
from tests.plugins.places import OTHERS, QUICK

pytestmark = pytest.mark.models


class TestIa3(MethodConformance):
    method = "ia3"
    seeded = False
    bases = QUICK


@pytest.mark.long
class TestIa3OnTheOtherBases(TestIa3):
    bases = OTHERS


class TestIa3OnKeysAndValuesOfOneBlock(MethodConformance):
    method = "ia3"
    seeded = False
    options: ClassVar[Mapping[str, Any]] = {"feedforward": False, "layers": [1]}
    bases = (("mistral", "bf16"), ("phi3", "bf16"))
