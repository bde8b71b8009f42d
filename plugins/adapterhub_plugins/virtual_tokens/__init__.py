"""Methods that put virtual tokens before the input of the whole model."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

_CAPABILITIES = frozenset({Capability.TRAIN, Capability.STACK, Capability.QUANTIZED_BASE})

_TOKENS = {"tokens": "16: how many virtual tokens"}
_START = {
    "init": "random (default: tokens of the vocabulary), or text",
    "text": "none: a text whose tokens they start from",
}
PROMPT_OPTIONS = {**_TOKENS, **_START}
ENCODED_OPTIONS = {**_TOKENS, "hidden": "the base's own width: of the network that trains them"}
PREFIX_OPTIONS = {
    **_TOKENS,
    **_START,
    "projection": "false: train through a network that is thrown away",
    "hidden": "512: width of that network; with projection=true only",
}


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="prompt_tuning",
            summary="a few trained embeddings before the input",
            target="adapterhub_plugins.virtual_tokens.prompts:PromptTuning",
            reference="arXiv 2104.08691",
            config_version=1,
            preset={"learning_rate": 1.5e-2},
            capabilities=_CAPABILITIES,
            options=PROMPT_OPTIONS,
        ),
        Method(
            name="prefix_tuning",
            summary="trained keys and values before the input, in every layer",
            target="adapterhub_plugins.virtual_tokens.prefixes:PrefixTuning",
            reference="arXiv 2101.00190",
            config_version=1,
            preset={"learning_rate": 6e-2},
            capabilities=_CAPABILITIES,
            options=PREFIX_OPTIONS,
        ),
        Method(
            name="p_tuning",
            summary="embeddings before the input, trained through a small network",
            target="adapterhub_plugins.virtual_tokens.prompts:PTuning",
            reference="arXiv 2103.10385",
            config_version=1,
            preset={"learning_rate": 2e-3},
            capabilities=_CAPABILITIES,
            options=ENCODED_OPTIONS,
        ),
    ]
