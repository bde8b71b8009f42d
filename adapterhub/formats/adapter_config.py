"""The bytes of `adapter_config.json`, key by key against what peft has written since 0.1.

Follows nothing the file names: no import, no path, no base. Since when a key is known and whether
it matters stands in `domain.peft_keys`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from adapterhub.domain.manifest import CONFIG_FILE
from adapterhub.domain.peft_keys import KEYS, NEWEST, says_nothing
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
_MODULES: dict[str, rules.Rule] = _SHARED | {
    "exclude_modules": rules.nullable(rules.modules),
    "modules_to_save": rules.nullable(rules.listing(rules.text(512))),
    "target_modules": rules.nullable(rules.modules),
}
_LORA: dict[str, rules.Rule] = _MODULES | {
    "alora_invocation_tokens": rules.nullable(rules.listing(rules.whole(0, 2**31))),
    "alpha_pattern": rules.nullable(rules.patterns(rules.number(above=0, most=1e6))),
    "arrow_config": rules.nullable(rules.table),
    "bias": rules.one_of("none", "all", "lora_only"),
    "corda_config": rules.nullable(rules.table),
    "ensure_weight_tying": rules.nullable(rules.flag),
    "eva_config": rules.nullable(rules.table),
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
    "monteclora_config": rules.nullable(rules.table),
    "qalora_group_size": rules.nullable(rules.whole(1, 65_536)),
    "r": rules.whole(1, 4096),
    "rank_pattern": rules.nullable(rules.patterns(rules.whole(1, 4096))),
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
_SIZE = rules.nullable(rules.whole(1, 2**24))
_START: dict[str, rules.Rule] = {
    "prompt_tuning_init": rules.nullable(rules.one_of("RANDOM", "SAMPLE_VOCAB", "TEXT")),
    "prompt_tuning_init_text": rules.nullable(rules.anything),
}
_VIRTUAL: dict[str, rules.Rule] = _SHARED | {
    "modules_to_save": rules.nullable(rules.listing(rules.text(512))),
    "num_attention_heads": _SIZE,
    "num_layers": _SIZE,
    "num_transformer_submodules": rules.nullable(rules.whole(1, 2)),
    "num_virtual_tokens": rules.whole(1, 1_000_000),
    "token_dim": _SIZE,
}
_RULES: dict[str, dict[str, rules.Rule]] = {
    "LORA": _LORA,
    "IA3": _MODULES
    | {
        "fan_in_fan_out": rules.nullable(rules.flag),
        "feedforward_modules": rules.nullable(rules.modules),
        "init_ia3_weights": rules.nullable(rules.flag),
    },
    "LN_TUNING": _MODULES | {"modules_to_save": rules.nullable(rules.modules)},
    "PROMPT_TUNING": _VIRTUAL
    | _START
    | {
        "tokenizer_kwargs": rules.nullable(rules.table),
        "tokenizer_name_or_path": rules.nullable(rules.text(1000)),
    },
    "PREFIX_TUNING": _VIRTUAL
    | _START
    | {
        "encoder_hidden_size": _SIZE,
        "init_weights": rules.nullable(rules.one_of("zero")),
        "prefix_projection": rules.nullable(rules.flag),
    },
    "P_TUNING": _VIRTUAL
    | {
        "encoder_dropout": rules.nullable(rules.number(least=0, most=1)),
        "encoder_hidden_size": _SIZE,
        "encoder_num_layers": rules.nullable(rules.whole(1, 100)),
        "encoder_reparameterization_type": rules.nullable(rules.one_of("MLP", "LSTM")),
    },
}
_TOKENS = ("num_virtual_tokens",)
_REQUIRED = {
    "LORA": ("r", "lora_alpha"),
    "PROMPT_TUNING": _TOKENS,
    "PREFIX_TUNING": _TOKENS,
    "P_TUNING": _TOKENS,
}
_HINT = "correct the key, or ask the adapter's author to"


def decode_config(data: bytes, *, name: str = CONFIG_FILE) -> dict[str, Any]:
    """The checked object; of keys peft does not know, those that say nothing are dropped.

    A config of a method that is read here is held to that method's keys; another's to the keys all
    share, and to limits. Raises FormatError naming file and key.
    """
    return check_config(_parse(data, name), name=name)


def dropped_keys(data: bytes, *, name: str = CONFIG_FILE) -> tuple[str, ...]:
    """The keys that `decode_config` leaves out of an object it accepts, sorted."""
    value = _parse(data, name)
    return tuple(sorted(value.keys() - check_config(value, name=name).keys()))


def _parse(data: bytes, name: str) -> dict[str, Any]:
    value = loads_strict(data, name=name, max_depth=8)
    if not isinstance(value, dict):
        raise FormatError(f"{name} is not an object", hint=_HINT)
    return value


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
    kind = config.get("peft_type")
    table = _RULES.get(kind, _SHARED) if isinstance(kind, str) else _SHARED
    kept = {}
    for key, value in config.items():
        if key in table:
            problem = table[key](value)
        elif table is _SHARED:
            problem = rules.anything(value)
        elif says_nothing(key, value, KEYS[str(kind)]):
            continue
        else:
            problem = _unknown(config)
        if problem:
            raise FormatError(f"{name}: {key[:80]!r} {problem}", hint=_HINT)
        kept[key] = value
    missing = next((key for key in _REQUIRED.get(str(kind), ()) if key not in kept), None)
    if missing:
        raise FormatError(f"{name}: {missing!r} is missing", hint=_HINT)
    return kept


def _unknown(config: Mapping[str, Any]) -> str:
    """Which peft brought the key is known only by the release that wrote the file."""
    writer = config.get("peft_version")
    wrote = re.fullmatch(
        r"(\d{1,4})\.(\d{1,4})(\.\S{1,60})?", writer if isinstance(writer, str) else ""
    )
    newest = tuple(map(int, NEWEST.split(".")))
    if wrote and (int(wrote[1]), int(wrote[2])) > newest:
        return (
            f"came with a peft after {NEWEST} (peft {writer} wrote it), "
            "and what it asks for is not known here"
        )
    return f"is unknown to peft {NEWEST} for {config['peft_type']}, and so is what it asks for"
