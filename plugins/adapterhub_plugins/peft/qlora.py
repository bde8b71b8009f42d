"""QLoRA (arXiv 2305.14314): LoRA with the paper's settings, on the base it is about.

What it makes is a LoRA and is stored as one; the trainer's side of the recipe is in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.errors import UsageError
from adapterhub_plugins.peft.lora import Lora

# Of the paper's appendix, for models up to 13 billion parameters.
DEFAULTS = {"rank": 64, "alpha": 16, "dropout": 0.1}


class QLora(Lora):
    """`adapterhub.domain.protocols.AdapterMethod`."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        if not base.scheme.double_quant:
            raise UsageError(
                f"qlora is for a base in NF4 with double quantization, and {base.name} is "
                f"{base.scheme}",
                hint=f"adapterhub base add NAME {base.source} --scheme nf4, or use --method lora",
            )
        return super().new_config(base, {**DEFAULTS, **options})
