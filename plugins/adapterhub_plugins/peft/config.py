"""LoRA's configuration: our few options to the config that plain PEFT reads, and back.

Writes only what differs from PEFT's defaults, so that older releases load it too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.targets import family_targets
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub_plugins.peft.describe import refuse_base_changing_start

# What this method cannot attach, by PEFT's name for it; each is refused and never dropped.
UNSUPPORTED = {
    "modules_to_save": None,
    "trainable_token_indices": None,
    "target_parameters": None,
    "layer_replication": None,
    "megatron_config": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "lora_bias": False,
}


def new_config(base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """`rank`, `alpha` (default 2 * rank), `dropout`, `targets`, `rslora` to PEFT's keys."""
    known = {"rank", "alpha", "dropout", "targets", "rslora"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(
            f"lora has no option {unknown[0]!r}", hint=f"its options: {', '.join(sorted(known))}"
        )
    rank = int(_number(options, "rank", 8))
    alpha = float(_number(options, "alpha", 2 * rank))
    dropout = float(_number(options, "dropout", 0.0))
    _check_numbers(rank, alpha, dropout)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.id,
        "revision": None if base.revision.startswith("sha256:") else base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": dropout,
        "target_modules": list(family_targets(base.family, options.get("targets", "all-linear"))),
        "bias": "none",
        "init_lora_weights": True,
        "fan_in_fan_out": base.family == "gpt2",
    }
    if options.get("rslora"):
        config["use_rslora"] = True
    return config


def to_peft(config: Mapping[str, Any]) -> Any:
    """A `peft.LoraConfig`. Raises CapabilityError or MismatchError naming the key at fault."""
    from dataclasses import fields

    from peft import LoraConfig

    for key, harmless in UNSUPPORTED.items():
        if config.get(key, harmless) not in (harmless, None, [], {}):
            raise CapabilityError(
                f"this adapter uses {key}, which lora here does not attach",
                hint="ask its author for one without, or load it with plain peft",
            )
    if config.get("bias", "none") != "none":
        raise CapabilityError(
            "this adapter trains the base's own biases, which lora here does not attach",
            hint='ask its author for one with "bias": "none", or load it with plain peft',
        )
    refuse_base_changing_start(config)
    known = {field.name for field in fields(LoraConfig)}
    unknown = sorted(set(config) - known)
    if unknown:
        raise MismatchError(
            f"the installed peft does not know {unknown[0]!r} of this adapter's config",
            hint="pip install -U peft",
        )
    return LoraConfig(**config)


def _number(options: Mapping[str, Any], name: str, default: float) -> float:
    """A recipe's file can hold anything. `rank` is whole."""
    value = options.get(name, default)
    wanted = int if name == "rank" else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = "a whole number" if name == "rank" else "a number"
        raise UsageError(f"{name} {value!r} is not {kind}", hint=f"{default:g} is usual")
    return value


def _check_numbers(rank: int, alpha: float, dropout: float) -> None:
    if not 1 <= rank <= 4096:
        raise UsageError(f"rank {rank} is out of range", hint="use 1 to 4096; 8 or 16 is usual")
    if not (math.isfinite(alpha) and alpha > 0):
        raise UsageError(f"alpha {alpha:g} is out of range", hint="use a positive number")
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout {dropout:g} is out of range", hint="use 0 to below 1")
