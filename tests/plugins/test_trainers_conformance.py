"""Our own trainers keep the promises of a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from adapterhub.testing import TrainerConformance

pytestmark = pytest.mark.models


class TestSft(TrainerConformance):
    trainer = "sft"
    bases = ("llama", "phi3", "gpt2")


class TestDistill(TrainerConformance):
    trainer = "distill"


class TestDistillInReverse(TrainerConformance):
    trainer = "distill"
    options: ClassVar[Mapping[str, Any]] = {"divergence": "reverse", "hard": 0.0}
    bases = ("llama",)


class TestDistillAcrossVocabularies(TrainerConformance):
    trainer = "distill"
    options: ClassVar[Mapping[str, Any]] = {"align": True}
    bases = ("llama",)
