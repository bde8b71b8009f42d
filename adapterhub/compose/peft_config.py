"""The `adapter_config.json` of a merged adapter, for plain peft (0.18 to 0.21) to load.

Plans in, JSON out: every scaling is 1, every rank is the module's own and every name is whole, so
that peft binds exactly the modules that were merged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapterhub.domain.manifest import PEFT_PREFIX, BaseRecord


def lora_config(
    ranks: Mapping[str, int], *, base: BaseRecord, configs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """LoRA with the ranks given by module. `configs` are the members', for what they agree on.

    `r` and `lora_alpha` are the largest rank, so that a server that ignores the patterns still
    scales by 1.
    """
    largest = max(ranks.values())
    # peft takes a key for a regular expression that may match a dotted end; the anchor rules out
    # a longer name that ends like this one.
    pattern = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != largest}
    commit = base.revision if base.revision and ":" not in base.revision else None
    return {
        "peft_type": "LORA",
        "task_type": _agreed(configs, "task_type"),
        "base_model_name_or_path": base.id,
        "revision": commit,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(config.get("fan_in_fan_out") for config in configs),
        "init_lora_weights": True,
        "target_modules": sorted(ranks),
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
    }


def tensor_names(module: str) -> tuple[str, str]:
    """Under which names peft stores A and B."""
    return f"{PEFT_PREFIX}{module}.lora_A.weight", f"{PEFT_PREFIX}{module}.lora_B.weight"


def _agreed(configs: Sequence[Mapping[str, Any]], key: str) -> Any:
    values = [config.get(key) for config in configs]
    return values[0] if values and all(value == values[0] for value in values) else None
