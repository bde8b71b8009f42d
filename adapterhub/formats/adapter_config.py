"""The bytes of `adapter_config.json`, key by key against what peft 0.21 writes for LoRA.

Follows nothing the file names: no import, no path, no base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapterhub.domain.manifest import CONFIG_FILE
from adapterhub.errors import FormatError
from adapterhub.formats import config_rules as rules
from adapterhub.formats.strict_json import loads_strict

_SHARED: dict[str, rules.Rule] = {
    "auto_map": rules.nullable(rules.auto_mapping),
    "auto_mapping": rules.nullable(rules.auto_mapping),
    "base_model_name_or_path": rules.nullable(rules.text(1000)),
    "inference_mode": rules.nullable(rules.flag),
    "peft_type": rules.text(64),
    "peft_version": rules.nullable(rules.text(100)),
    "revision": rules.nullable(rules.text(200)),
    "task_type": rules.nullable(rules.text(64)),
}
_LORA: dict[str, rules.Rule] = _SHARED | {
    "alora_invocation_tokens": rules.nullable(rules.listing(rules.whole(0, 2**31))),
    "alpha_pattern": rules.nullable(rules.patterns(rules.number(above=0, most=1e6))),
    "arrow_config": rules.nullable(rules.table),
    "bias": rules.one_of("none", "all", "lora_only"),
    "corda_config": rules.nullable(rules.table),
    "ensure_weight_tying": rules.nullable(rules.flag),
    "eva_config": rules.nullable(rules.table),
    "exclude_modules": rules.nullable(rules.modules),
    "fan_in_fan_out": rules.nullable(rules.flag),
    "init_lora_weights": rules.nullable(rules.either(rules.flag, rules.text(64))),
    "kasa_config": rules.nullable(rules.table),
    "layer_replication": rules.nullable(rules.listing(rules.listing(rules.whole(0, 10_000)))),
    "layers_pattern": rules.nullable(rules.modules),
    "layers_to_transform": rules.nullable(
        rules.either(rules.whole(0, 10_000), rules.listing(rules.whole(0, 10_000)))
    ),
    "loftq_config": rules.nullable(rules.table),
    "lora_alpha": rules.number(above=0, most=1e6),
    "lora_bias": rules.nullable(rules.flag),
    "lora_dropout": rules.nullable(rules.number(least=0, most=1)),
    "lora_ga_config": rules.nullable(rules.table),
    "megatron_config": rules.nullable(rules.table),
    # peft imports the module of this name, so it may be no other.
    "megatron_core": rules.nullable(rules.one_of("megatron.core")),
    "modules_to_save": rules.nullable(rules.listing(rules.text(512))),
    "monteclora_config": rules.nullable(rules.table),
    "qalora_group_size": rules.nullable(rules.whole(1, 65_536)),
    "r": rules.whole(1, 4096),
    "rank_pattern": rules.nullable(rules.patterns(rules.whole(1, 4096))),
    "target_modules": rules.nullable(rules.modules),
    "target_parameters": rules.nullable(rules.listing(rules.text(512))),
    "trainable_token_indices": rules.nullable(
        rules.either(rules.listing(rules.whole(0, 2**31)), rules.table)
    ),
    "use_bdlora": rules.nullable(rules.either(rules.flag, rules.table)),
    "use_dora": rules.nullable(rules.flag),
    "use_qalora": rules.nullable(rules.flag),
    "use_rslora": rules.nullable(rules.flag),
    "velora_config": rules.nullable(rules.table),
}
_REQUIRED = ("r", "lora_alpha")
_HINT = "correct the key, or ask the adapter's author to"


def decode_config(data: bytes, *, name: str = CONFIG_FILE) -> dict[str, Any]:
    """The checked object; of keys peft does not know, those that say nothing are dropped.

    A LoRA config is held to the keys of LoraConfig; another method's to the keys all share, and
    to limits. Raises FormatError naming file and key.
    """
    value = loads_strict(data, name=name, max_depth=8)
    if not isinstance(value, dict):
        raise FormatError(f"{name} is not an object", hint=_HINT)
    return check_config(value, name=name)


def encode_config(config: Mapping[str, Any]) -> bytes:
    """Pretty JSON in the order given, since peft takes the first of several patterns that match;
    sets, which peft likes, become sorted lists.

    Raises FormatError for a config that `decode_config` would refuse.
    """
    text = json.dumps(dict(config), indent=2, allow_nan=False, default=sorted)
    data = f"{text}\n".encode()
    decode_config(data)
    return data


def check_config(config: Mapping[str, Any], *, name: str = CONFIG_FILE) -> dict[str, Any]:
    """The object by the rules of the method that its peft_type names."""
    lora = config.get("peft_type") == "LORA"
    table = _LORA if lora else _SHARED
    kept = {}
    for key, value in config.items():
        if key in table:
            problem = table[key](value)
        elif not lora:
            problem = rules.anything(value)
        elif value in (None, False, "", [], {}):
            continue
        else:
            problem = "is unknown to peft 0.21's LoraConfig, and so is what it asks for"
        if problem:
            raise FormatError(f"{name}: {key[:80]!r} {problem}", hint=_HINT)
        kept[key] = value
    missing = next((key for key in _REQUIRED if lora and key not in kept), None)
    if missing:
        raise FormatError(f"{name}: {missing!r} is missing", hint=_HINT)
    return kept
