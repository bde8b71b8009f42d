"""The method `prompt_design`: what a person writes before the conversation, as an adapter."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

OPTIONS = {
    "system": "none: a system message, which comes before the conversation's own",
    "examples": 'none: a list of {"prompt": "...", "completion": "..."}',
    "template": "none: a text with {prompt} where the last user message belongs",
}


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="prompt_design",
            summary="a system message, examples and a template; nothing is trained",
            target="adapterhub_plugins.prompt_design.method:PromptDesign",
            reference="arXiv 2005.14165",
            config_version=1,
            capabilities=frozenset({Capability.STACK, Capability.QUANTIZED_BASE}),
            tensors=False,
            options=OPTIONS,
        )
    ]
