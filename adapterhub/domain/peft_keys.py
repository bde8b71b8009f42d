"""What peft's configs have said since when: every key, its default, and whether it matters.

Facts read from the fields of peft 0.1 to 0.21; which value a key may have is for `formats`, and
which of them a method attaches is the method's word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from adapterhub.errors import MismatchError

NEWEST = "0.21"


@dataclass(frozen=True, slots=True)
class PeftKey:
    """`since` is the first release that wrote the key. `changes` says whether another value than
    the default changes what a trained adapter computes, not only how it was or will be trained."""

    since: str
    default: Any = None
    changes: bool = True


def _how(since: str, default: Any = None) -> PeftKey:
    return PeftKey(since, default, changes=False)


_HEAD = {
    "auto_map": _how("0.4"),  # transformers' name for auto_mapping, which some tools write
    "auto_mapping": _how("0.4"),
    "base_model_name_or_path": PeftKey("0.1"),
    "inference_mode": _how("0.1", False),
    "peft_type": PeftKey("0.1"),
    "peft_version": _how("0.18"),
    "revision": PeftKey("0.4"),
    "task_type": _how("0.1"),
}
_VIRTUAL = _HEAD | {
    "modules_to_save": PeftKey("0.17"),
    "num_attention_heads": PeftKey("0.1"),
    "num_layers": PeftKey("0.1"),
    "num_transformer_submodules": PeftKey("0.1"),
    "num_virtual_tokens": PeftKey("0.1"),
    "token_dim": PeftKey("0.1"),
}
_PROMPT_START = {
    "prompt_tuning_init": _how("0.1", "RANDOM"),
    "prompt_tuning_init_text": _how("0.1"),
}
KEYS: Mapping[str, Mapping[str, PeftKey]] = {
    "LORA": _HEAD
    | {
        "alora_invocation_tokens": PeftKey("0.18"),
        "alpha_pattern": PeftKey("0.6", {}),
        "arrow_config": PeftKey("0.18"),
        "bias": PeftKey("0.1", "none"),
        "corda_config": _how("0.15"),
        "ensure_weight_tying": PeftKey("0.18", False),
        "eva_config": _how("0.14"),
        "exclude_modules": PeftKey("0.14"),
        "fan_in_fan_out": PeftKey("0.1", False),
        # Some starts also subtract from the base, which peft repeats at each loading.
        "init_lora_weights": PeftKey("0.3", True),
        "kasa_config": PeftKey("0.21"),
        "layer_replication": PeftKey("0.10"),
        "layers_pattern": PeftKey("0.4"),
        "layers_to_transform": PeftKey("0.4"),
        "loftq_config": _how("0.7", {}),
        "lora_alpha": PeftKey("0.1", 8),
        "lora_bias": PeftKey("0.14", False),
        "lora_dropout": _how("0.1", 0.0),
        "lora_ga_config": _how("0.19"),
        "megatron_config": PeftKey("0.7"),
        "megatron_core": _how("0.7", "megatron.core"),
        "modules_to_save": PeftKey("0.1"),
        "monteclora_config": PeftKey("0.20"),
        "qalora_group_size": PeftKey("0.16", 16),
        "r": PeftKey("0.1", 8),
        "rank_pattern": PeftKey("0.6", {}),
        "target_modules": PeftKey("0.1"),
        "target_parameters": PeftKey("0.17"),
        "trainable_token_indices": PeftKey("0.15"),
        "use_bdlora": PeftKey("0.19"),
        "use_dora": PeftKey("0.9", False),
        "use_qalora": PeftKey("0.16", False),
        "use_rslora": PeftKey("0.8", False),
        "velora_config": PeftKey("0.20"),
    },
    "IA3": _HEAD
    | {
        "exclude_modules": PeftKey("0.14"),
        "fan_in_fan_out": PeftKey("0.4", False),
        "feedforward_modules": PeftKey("0.4"),
        "init_ia3_weights": _how("0.4", True),
        "modules_to_save": PeftKey("0.4"),
        "target_modules": PeftKey("0.4"),
    },
    "LN_TUNING": _HEAD
    | {
        "exclude_modules": PeftKey("0.14"),
        "modules_to_save": PeftKey("0.11"),
        "target_modules": PeftKey("0.11"),
    },
    "PROMPT_TUNING": _VIRTUAL
    | _PROMPT_START
    | {"tokenizer_kwargs": _how("0.7"), "tokenizer_name_or_path": _how("0.1")},
    # What starts a prompt is kept for prefixes too, which some of our own adapters start alike.
    "PREFIX_TUNING": _VIRTUAL
    | _PROMPT_START
    | {
        "encoder_hidden_size": PeftKey("0.1"),
        "init_weights": _how("0.19"),
        "prefix_projection": PeftKey("0.1", False),
    },
    "P_TUNING": _VIRTUAL
    | {
        "encoder_dropout": _how("0.1", 0.0),
        "encoder_hidden_size": PeftKey("0.1"),
        "encoder_num_layers": PeftKey("0.1", 2),
        "encoder_reparameterization_type": PeftKey("0.1", "MLP"),
    },
}
# Keys that say how a tool kept the adapter in memory and nothing of what it computes.
IDLE = frozenset({"merge_weights", "runtime_config"})


def says_nothing(key: str, value: Any, keys: Mapping[str, PeftKey]) -> bool:
    """Whether leaving the key out means the same. An empty table asks for a variant of LoRA with
    its defaults, so what is empty says nothing only where no release gave it a meaning."""
    if key in keys:
        return value is None or value is False or value == keys[key].default
    return value in (None, False, "", [], {}) or key in IDLE


def for_release(
    config: Mapping[str, Any], known: Collection[str], *, release: str
) -> dict[str, Any]:
    """The config for a peft that knows only some keys, whose others say or change nothing.

    Raises MismatchError naming the key that would be lost and the release that brought it.
    """
    keys = KEYS.get(str(config.get("peft_type")), {})
    kept = {key: value for key, value in config.items() if key in known}
    for key, value in config.items():
        if key in known or says_nothing(key, value, keys):
            continue
        since = keys[key].since if key in keys else None
        if since and not keys[key].changes:
            continue
        came = f"came with peft {since}" if since else f"is unknown to peft {NEWEST}"
        raise MismatchError(
            f"the installed peft {release} does not know {key!r}, which {came}",
            hint=f"pip install 'peft>={since}'" if since else "pip install -U peft",
        )
    return kept
