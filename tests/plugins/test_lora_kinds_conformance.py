"""What LoRA's options make of it keeps every promise too, and so does its preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing.conformance import MethodConformance

pytestmark = pytest.mark.models


class TestOrthogonalLora(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {"rank": 4, "init": "orthogonal"}
    bases = (("gpt2", "nf4"),)


class TestLoraOfSeveralRanksInSomeLayers(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {
        "rank": 4,
        "rank_pattern": {"q_proj": 2, r"layers\.1\..*_proj": 3},
        "alpha_pattern": {"down_proj": 5},
        "layers": "1",
    }
    bases = (("llama", "bf16"),)


class TestPissa(MethodConformance):
    """What is trained and what is stored differ, and so do the configs."""

    method = "lora"
    seeded = False  # it starts where the base says
    options: ClassVar[Mapping[str, Any]] = {"rank": 3, "init": "pissa", "rslora": True}
    bases = (("phi3", "nf4"), ("gpt2", "bf16"))


class TestDora(MethodConformance):
    method = "lora"
    options: ClassVar[Mapping[str, Any]] = {"rank": 3, "dora": True}
    bases = (("phi3", "nf4"), ("gpt2", "bf16"), ("gpt2", "nf4"))


class TestQLora(MethodConformance):
    method = "qlora"
    options: ClassVar[Mapping[str, Any]] = {"rank": 4, "dropout": 0.0}
    bases = (("phi3", "nf4"),)
