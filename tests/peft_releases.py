"""Configs as old releases of peft wrote them: the fields of the real classes, release by release.

Read from the wheels on PyPI, 0.1.0 to 0.21.2; independent of the tables in the package.
"""

from __future__ import annotations

from typing import Any

RELEASES = ("0.1", "0.2", "0.3", "0.5", "0.6", "0.8", "0.10", "0.14", "0.17", "0.19", "0.21")
_HEAD = {"base_model_name_or_path": None, "task_type": None, "inference_mode": False}
_LATER = {"auto_mapping": None, "revision": None}
_VIRTUAL = {
    **_HEAD, "num_virtual_tokens": None, "token_dim": None, "num_transformer_submodules": None,
    "num_attention_heads": None, "num_layers": None,
}  # fmt: skip
_VIRTUAL_LATER = {
    "0.4": _LATER, "0.17": {"modules_to_save": None}, "0.18": {"peft_version": None},
}  # fmt: skip
ADDED: dict[str, dict[str, dict[str, Any]]] = {
    "LORA": {
        "0.1": {
            **_HEAD, "r": 8, "target_modules": None, "lora_alpha": 8, "lora_dropout": 0.0,
            "fan_in_fan_out": False, "bias": "none", "modules_to_save": None,
        },
        "0.3": {"init_lora_weights": True},
        "0.4": {**_LATER, "layers_to_transform": None, "layers_pattern": None},
        "0.6": {"rank_pattern": {}, "alpha_pattern": {}},
        "0.7": {"megatron_config": None, "megatron_core": "megatron.core", "loftq_config": {}},
        "0.8": {"use_rslora": False},
        "0.9": {"use_dora": False},
        "0.10": {"layer_replication": None},
        "0.14": {"exclude_modules": None, "eva_config": None, "lora_bias": False},
        "0.15": {"trainable_token_indices": None, "corda_config": None},
        "0.16": {"use_qalora": False, "qalora_group_size": 16},
        "0.17": {"target_parameters": None},
        "0.18": {
            "peft_version": None, "alora_invocation_tokens": None, "arrow_config": None,
            "ensure_weight_tying": False,
        },
        "0.19": {"lora_ga_config": None, "use_bdlora": None},
        "0.20": {"velora_config": None, "monteclora_config": None},
        "0.21": {"kasa_config": None},
    },
    "IA3": {
        "0.4": {
            **_HEAD, **_LATER, "target_modules": None, "feedforward_modules": None,
            "fan_in_fan_out": False, "modules_to_save": None, "init_ia3_weights": True,
        },
        "0.14": {"exclude_modules": None},
        "0.18": {"peft_version": None},
    },
    "LN_TUNING": {
        "0.11": {**_HEAD, **_LATER, "target_modules": None, "modules_to_save": None},
        "0.14": {"exclude_modules": None},
        "0.18": {"peft_version": None},
    },
    "PROMPT_TUNING": {
        "0.1": {
            **_VIRTUAL, "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": None,
            "tokenizer_name_or_path": None,
        },
        **_VIRTUAL_LATER,
        "0.7": {"tokenizer_kwargs": None},
    },
    "PREFIX_TUNING": {
        "0.1": {**_VIRTUAL, "encoder_hidden_size": None, "prefix_projection": False},
        **_VIRTUAL_LATER,
        "0.19": {"init_weights": None},
    },
    "P_TUNING": {
        "0.1": {
            **_VIRTUAL, "encoder_reparameterization_type": "MLP", "encoder_hidden_size": None,
            "encoder_num_layers": 2, "encoder_dropout": 0.0,
        },
        **_VIRTUAL_LATER,
    },
}  # fmt: skip
# Of 0.1 and 0.2 alone.
REMOVED = {"enable_lora": None, "merge_weights": False}
# What whoever trains one has to say.
_SAID = {
    "LORA": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q_proj"]},
    "IA3": {"target_modules": ["k_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "PROMPT_TUNING": {"num_virtual_tokens": 8, "prompt_tuning_init": "TEXT"},
    "PREFIX_TUNING": {"num_virtual_tokens": 8},
    "P_TUNING": {"num_virtual_tokens": 8, "encoder_hidden_size": 64},
}


def number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def fields(kind: str, release: str) -> dict[str, Any]:
    """Name and default of every field that a release's config class has."""
    found: dict[str, Any] = {}
    for since, added in ADDED[kind].items():
        if number(since) <= number(release):
            found |= added
    return found


def written(kind: str, release: str) -> dict[str, Any]:
    """The object in a trained adapter's adapter_config.json; empty before the kind existed."""
    found = fields(kind, release)
    if not found:
        return {}
    found |= _SAID[kind] | {"base_model_name_or_path": "acme/tiny", "task_type": "CAUSAL_LM"}
    found |= {"peft_type": kind, "inference_mode": True}
    if "peft_version" in found:
        found["peft_version"] = f"{release}.0"
    if kind == "LORA" and number(release) < (0, 3):
        found |= REMOVED
    return found
