"""Methods that put virtual tokens before the input of the whole model."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

_CAPABILITIES = frozenset({Capability.TRAIN, Capability.STACK, Capability.QUANTIZED_BASE})


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
        ),
        Method(
            name="prefix_tuning",
            summary="trained keys and values before the input, in every layer",
            target="adapterhub_plugins.virtual_tokens.prefixes:PrefixTuning",
            reference="arXiv 2101.00190",
            config_version=1,
            preset={"learning_rate": 6e-2},
            capabilities=_CAPABILITIES,
        ),
        Method(
            name="p_tuning",
            summary="embeddings before the input, trained through a small network",
            target="adapterhub_plugins.virtual_tokens.prompts:PTuning",
            reference="arXiv 2103.10385",
            config_version=1,
            preset={"learning_rate": 2e-3},
            capabilities=_CAPABILITIES,
        ),
    ]
