"""LoRA's configuration: our few options to the config that plain PEFT reads, and back.

Writes only what differs from PEFT's defaults, so that older releases load it too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.options import choice, flag, layer_numbers, number, refuse_unknown, whole
from adapterhub.domain.patterns import matching_key
from adapterhub.domain.peft_keys import KEYS, for_release
from adapterhub.domain.targets import family_targets
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub_plugins.peft.describe import refuse_base_changing_start

OPTIONS = (
    "rank", "alpha", "dropout", "targets", "rslora", "dora", "init", "rank_pattern",
    "alpha_pattern", "layers",
)  # fmt: skip
STARTS = ("default", "orthogonal", "pissa")
MAX_RANK = 4096

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
# Variants that peft would apply to the base's own weights, or that need more than lora's tensors.
VARIANTS = ("kasa_config", "velora_config", "monteclora_config", "arrow_config", "use_bdlora")
# A pattern of these could take forever to match, and `verify` would refuse the finished adapter.
_COSTLY = re.compile(r"\)[*+{]|(?:[*+?{].*){7}")
_PATTERN_HINT = 'patterns are for names of layers, such as {"q_proj": 16}'


def new_config(base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's keys for OPTIONS; alpha is twice the rank unless it is said."""
    refuse_unknown("lora", options, OPTIONS)
    rank = whole(options, "rank", 8, least=1, most=MAX_RANK)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.id,
        "revision": None if base.revision.startswith("sha256:") else base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _plain(_above_zero(options.get("alpha", 2 * rank), "alpha", usual=2 * rank)),
        "lora_dropout": number(options, "dropout", 0.0, least=0, below=1),
        "target_modules": _targets(base, options.get("targets", "all-linear")),
        "bias": "none",
        "init_lora_weights": True,
        "fan_in_fan_out": base.family == "gpt2",
    }
    config |= _patterns(options) | _variant(options)
    layers = layer_numbers(options)
    if layers is not None:
        config["layers_to_transform"] = list(layers)
    _check_start(config)
    return config


def widened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same config with every rank doubled and every scaling as it was."""
    factor = math.sqrt(2) if config.get("use_rslora") else 2
    return {
        **config,
        "r": 2 * config["r"],
        "lora_alpha": _plain(factor * config["lora_alpha"]),
        **{
            key: {pattern: _plain(by * value) for pattern, value in config[key].items()}
            for key, by in (("rank_pattern", 2), ("alpha_pattern", factor))
            if config.get(key)
        },
    }


def to_peft(config: Mapping[str, Any]) -> Any:
    """A `peft.LoraConfig`. Raises CapabilityError or MismatchError naming the key at fault."""
    from dataclasses import fields

    from peft import LoraConfig, __version__

    unsupported = [
        *(
            k
            for k, harmless in UNSUPPORTED.items()
            if config.get(k) not in (harmless, None, [], {})
        ),
        # An empty table asks for the variant as well, with its defaults.
        *(key for key in VARIANTS if config.get(key) not in (None, False)),
    ]
    for key in unsupported:
        raise CapabilityError(
            f"this adapter uses {key}, which lora here does not attach",
            hint="ask its author for one without, or load it with plain peft "
            f"{KEYS['LORA'][key].since} or later",
        )
    if config.get("bias", "none") != "none":
        raise CapabilityError(
            "this adapter trains the base's own biases, which lora here does not attach",
            hint='ask its author for one with "bias": "none", or load it with plain peft',
        )
    refuse_base_changing_start(config)
    known = {field.name for field in fields(LoraConfig)}
    try:
        return LoraConfig(**for_release(config, known, release=__version__))
    except (AttributeError, TypeError, ValueError) as error:
        raise MismatchError(
            f"the installed peft refuses this adapter's config: {str(error).splitlines()[0]}",
            hint="ask its author for a config that plain peft loads",
        ) from error


def check_reach(config: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Raises UsageError for a pattern or a layer of the config that is about none of the modules
    that were adapted, which peft would pass over in silence."""
    names = list(modules)
    for option in ("rank_pattern", "alpha_pattern"):
        for key in config.get(option) or {}:
            if not any(matching_key(name, [key]) for name in names):
                raise UsageError(
                    f"{option}: {key!r} fits no adapted layer",
                    hint=f"one of them is {names[0]}",
                )
    for layer in config.get("layers_to_transform") or ():
        if not any(f".{layer}." in name for name in names):
            raise UsageError(
                f"layers: this base has no block {layer} with such layers",
                hint="blocks are numbered from 0",
            )


def _targets(base: BaseSpec, value: Any) -> list[str]:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        value = tuple(value)
    elif not isinstance(value, str):
        raise UsageError(
            f"targets {value!r} are no names", hint="all-linear, attention, mlp or names of layers"
        )
    names = list(family_targets(base.family, value))
    if not names:
        raise UsageError("targets names no layers", hint="all-linear is usual")
    return names


def _patterns(options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in ("rank_pattern", "alpha_pattern"):
        table = options.get(option, {})
        if not isinstance(table, Mapping):
            raise UsageError(f"{option} {table!r} is not a table", hint=_PATTERN_HINT)
        for key, value in table.items():
            _check_pattern(option, key)
            if option == "rank_pattern":
                whole({f"{option}: {key}": value}, f"{option}: {key}", 8, least=1, most=MAX_RANK)
            else:
                _above_zero(value, f"{option}: {key}", usual=16)
        if table:
            found[option] = dict(table)
    return found


def _check_pattern(option: str, key: str) -> None:
    try:
        re.compile(f"(.*\\.)?({key})$")  # as peft wraps it
    except re.error as error:
        raise UsageError(
            f"{option}: {key!r} is not a regular expression: {error}", hint=_PATTERN_HINT
        ) from error
    if _COSTLY.search(key) or not key.isprintable() or not 0 < len(key) <= 2000:
        raise UsageError(
            f"{option}: {key[:60]!r} is a pattern that could take forever to match",
            hint=_PATTERN_HINT,
        )


def _variant(options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if flag(options, "rslora", default=False):
        found["use_rslora"] = True
    if flag(options, "dora", default=False):
        found["use_dora"] = True
    start = choice(options, "init", "default", STARTS)
    if start != "default":
        found["init_lora_weights"] = start
    return found


def _check_start(config: Mapping[str, Any]) -> None:
    start = config["init_lora_weights"]
    ranks = [config["r"], *config.get("rank_pattern", {}).values()]
    odd = next((rank for rank in ranks if rank % 2), None)
    if start == "orthogonal" and odd is not None:
        raise UsageError(
            f"an orthogonal start needs even ranks, and {odd} is odd", hint=f"use {odd + 1}"
        )
    if start != "pissa":
        return
    if config.get("use_dora"):
        raise UsageError(
            "pissa is stored as a difference, which dora would rescale", hint="choose one of them"
        )
    if 2 * max(ranks) > MAX_RANK:
        raise UsageError(
            f"pissa stores twice the rank, and 2 * {max(ranks)} is too large",
            hint=f"use a rank up to {MAX_RANK // 2}",
        )


def _above_zero(value: Any, name: str, *, usual: float) -> float:
    found = number({name: value}, name, usual, least=0, below=1e6)
    if found == 0:
        raise UsageError(f"{name} 0 is out of range", hint="use a positive number")
    return found


def _plain(value: float) -> float:
    """PEFT writes whole numbers without a point, and so do we."""
    return int(value) if float(value).is_integer() else value
