"""The method `vera` keeps every promise that its record makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from adapterhub.testing import MethodConformance


class TestVera(MethodConformance):
    method = "vera"
    options: ClassVar[Mapping[str, Any]] = {"rank": 8}
    bases = tuple(
        (family, scheme)
        for family in ("llama", "phi3", "qwen2", "gpt2")
        for scheme in ("bf16", "nf4")
    )
    seeded = False  # what is random is drawn from the config's seed, not from the run's
