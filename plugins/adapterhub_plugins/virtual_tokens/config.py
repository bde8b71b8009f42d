"""The stored config of virtual tokens: options to peft's keys, and the sizes of a base.

Knows configs and numbers; it opens no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.options import Options, choice, flag, refuse_unknown, whole
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub_plugins.virtual_tokens import ENCODED_OPTIONS, PREFIX_OPTIONS, PROMPT_OPTIONS

INIT, TEXT = "prompt_tuning_init", "prompt_tuning_init_text"
PROMPT, PREFIX, ENCODED = "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"
# A projection as wide as the keys of a 4 B model would have more parameters than a small model.
PROJECTION_HIDDEN = 512

_SIZES = ("token_dim", "num_attention_heads", "num_layers")
# What peft (0.21) writes, and how prefix tuning here starts.
_KEYS = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "num_virtual_tokens", "num_transformer_submodules", *_SIZES,
    "modules_to_save", INIT, TEXT,
})  # fmt: skip
_OWN_KEYS = {
    PROMPT: frozenset({"tokenizer_name_or_path", "tokenizer_kwargs"}),
    PREFIX: frozenset({"init_weights", "encoder_hidden_size", "prefix_projection"}),
    ENCODED: frozenset({
        "encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers",
        "encoder_dropout",
    }),
}  # fmt: skip


def prompt_config(base: BaseSpec, options: Options) -> dict[str, Any]:
    """`tokens`, `init`, `text` of prompt tuning."""
    refuse_unknown("prompt_tuning", options, PROMPT_OPTIONS)
    return {**_config(PROMPT, base, options), **_start(options)}


def encoded_config(base: BaseSpec, options: Options) -> dict[str, Any]:
    """`tokens`, `hidden` (default: the base's own width) of p-tuning."""
    refuse_unknown("p_tuning", options, ENCODED_OPTIONS)
    config = _config(ENCODED, base, options)
    if "hidden" in options:
        config["encoder_hidden_size"] = _hidden(options)
    return {**config, "encoder_reparameterization_type": "MLP"}


def prefix_config(base: BaseSpec, options: Options) -> dict[str, Any]:
    """`tokens`, and `projection` with `hidden` or `init` with `text`, of prefix tuning."""
    refuse_unknown("prefix_tuning", options, PREFIX_OPTIONS)
    config = _config(PREFIX, base, options)
    projection = flag(options, "projection", default=False)
    config["prefix_projection"] = projection
    idle = {"init", "text"} if projection else {"hidden"}
    for name in sorted(idle & set(options)):
        raise UsageError(
            f"{name} means nothing {'with' if projection else 'without'} a projection",
            hint=f"leave out {name}, or set projection to {str(not projection).lower()}",
        )
    if projection:
        config["encoder_hidden_size"] = _hidden(options)
        return config
    return {**config, **_start(options)}


def completed(config: Mapping[str, Any], base: LoadedBase, peft_type: str) -> dict[str, Any]:
    """The config with the sizes that this base has.

    Raises MismatchError for a config of another kind or of another size, CapabilityError for one
    that asks for more than virtual tokens.
    """
    check_stored(config, peft_type)
    sizes = {**base_sizes(base, peft_type), "num_transformer_submodules": 1}
    for name, size in sizes.items():
        if config.get(name, size) not in (size, None):
            raise MismatchError(
                f"{name} is {config[name]!r}, but this base takes {size}",
                hint="the adapter was made for another base; `adapterhub show` names it",
            )
    return {**config, **sizes}


def check_stored(config: Mapping[str, Any], peft_type: str) -> None:
    """Raises MismatchError for a config of another kind or whose sizes are none, CapabilityError
    for one that asks for more than virtual tokens."""
    if config.get("peft_type") != peft_type:
        raise MismatchError(
            f"the config is of {config.get('peft_type')}, not of {peft_type}",
            hint="adapter_config.json and the manifest do not belong together; pull them again",
        )
    _check_keys(config, peft_type)
    for name in ("num_virtual_tokens", *_SIZES):
        value = config.get(name)
        if (value is not None or name not in _SIZES) and (type(value) is not int or value < 1):
            raise MismatchError(
                f"{name} is {value!r}",
                hint="the config was edited; pull the adapter again or ask its author",
            )
    if (config.get("token_dim") or 0) % (config.get("num_attention_heads") or 1):
        raise MismatchError(
            f"token_dim {config['token_dim']} does not divide into "
            f"{config['num_attention_heads']} heads",
            hint="the config was edited; pull the adapter again or ask its author",
        )


def stored_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without how the adapter started: a text would make peft look for its tokenizer."""
    kept = {name: value for name, value in config.items() if name not in (INIT, TEXT)}
    if config["peft_type"] == PROMPT:
        kept[INIT] = "RANDOM"
    return kept


def base_sizes(base: LoadedBase, peft_type: str) -> dict[str, int]:
    """As peft counts: prefix tuning has the heads and the width of keys, the others of the input.

    Raises CapabilityError where layers differ in the shape of their keys.
    """
    config = base.model.config.get_text_config()
    heads, width = int(config.num_attention_heads), int(config.hidden_size)
    if peft_type == PREFIX:
        if any(config.to_dict().get(name) for name in ("per_layer_config", "global_head_dim")):
            raise CapabilityError(
                "the layers of this base have keys of different shapes; a prefix has one",
                hint="use --method prompt_tuning",
            )
        head = getattr(config, "head_dim", None) or width // heads
        heads = int(getattr(config, "num_key_value_heads", None) or heads)
        width = int(head) * heads
    return dict(zip(_SIZES, (width, heads, int(config.num_hidden_layers)), strict=True))


def _config(peft_type: str, base: BaseSpec, options: Options) -> dict[str, Any]:
    most = min(4096, base.context_length - 1)
    return {
        "peft_type": peft_type,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.id,
        "revision": None if base.revision.startswith("sha256:") else base.revision,
        "inference_mode": True,
        "num_virtual_tokens": whole(options, "tokens", 16, least=1, most=most),
    }


def _check_keys(config: Mapping[str, Any], peft_type: str) -> None:
    unknown = sorted(set(config) - _KEYS - _OWN_KEYS[peft_type])
    if unknown:
        raise MismatchError(
            f"{peft_type} does not know {unknown[0]!r} of this adapter's config",
            hint="upgrade adapterhub, or ask its author for a config without it",
        )
    if config.get("modules_to_save"):
        raise CapabilityError(
            "this adapter trains modules of the base too (modules_to_save)",
            hint="ask its author for one without, or load it with plain peft",
        )


def _hidden(options: Options) -> int:
    return whole(options, "hidden", PROJECTION_HIDDEN, least=1, most=65536)


def _start(options: Options) -> dict[str, Any]:
    text = options.get("text")
    start = choice(options, "init", "random" if text is None else "text", ("random", "text"))
    if start == "random":
        if text is not None:
            raise UsageError("a random start has no text", hint="leave out init or text")
        return {INIT: "SAMPLE_VOCAB"}
    if not isinstance(text, str) or not text.strip():
        raise UsageError(
            f"a start from text needs one, and text is {text!r}",
            hint='say what the task is: text="Translate English to Korean."',
        )
    return {INIT: "TEXT", TEXT: text}
