"""The `adapter_config.json` of a merged adapter, for plain peft (0.18 to 0.21) to load.

Plans in, JSON out: every scaling is 1 unless it is given, every rank is the module's own and every
name is whole, so that peft binds exactly the modules that were merged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapterhub.domain.manifest import PEFT_PREFIX, BaseRecord


def lora_config(
    ranks: Mapping[str, int],
    *,
    base: BaseRecord,
    configs: Sequence[Mapping[str, Any]],
    scalings: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """LoRA with the ranks, and scalings, given by module. `configs` are the members', for what they
    agree on.

    `r` is the largest rank and `lora_alpha` that times the scaling of its module, so that a server
    that ignores the patterns still scales by what all modules have in common.
    """
    widest = max(ranks, key=lambda module: ranks[module])
    largest = ranks[widest]
    # alpha/rank gives the scaling back as it was, or one rounding away from it.
    alphas = {
        module: _plain(rank * (scalings or {}).get(module, 1.0)) for module, rank in ranks.items()
    }
    alpha = alphas[widest]
    commit = base.revision if base.revision and ":" not in base.revision else None
    return {
        "peft_type": "LORA",
        "task_type": _agreed(configs, "task_type"),
        "base_model_name_or_path": base.id,
        "revision": commit,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(config.get("fan_in_fan_out") for config in configs),
        "init_lora_weights": True,
        "target_modules": sorted(ranks),
        "rank_pattern": {_only(m): rank for m, rank in ranks.items() if rank != largest},
        "alpha_pattern": {_only(m): own for m, own in alphas.items() if own != alpha},
    }


def _only(module: str) -> str:
    """A pattern for this module: peft takes a key for a regular expression that may match a dotted
    end, and the anchor rules out a longer name that ends like this one."""
    return f"^{re.escape(module)}"


def _plain(value: float) -> float:
    """peft writes whole numbers without a point."""
    return int(value) if float(value).is_integer() else value


def tensor_names(module: str) -> tuple[str, str]:
    """Under which names peft stores A and B."""
    return f"{PEFT_PREFIX}{module}.lora_A.weight", f"{PEFT_PREFIX}{module}.lora_B.weight"


def _agreed(configs: Sequence[Mapping[str, Any]], key: str) -> Any:
    values = [config.get(key) for config in configs]
    return values[0] if values and all(value == values[0] for value in values) else None
