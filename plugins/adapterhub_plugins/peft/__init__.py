"""Methods that go through peft."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="lora",
            summary="low-rank deltas beside the weights",
            target="adapterhub_plugins.peft.lora:Lora",
            reference="arXiv 2106.09685",
            config_version=1,
            capabilities=frozenset(
                {
                    Capability.TRAIN,
                    Capability.IDENTITY_START,
                    Capability.STACK,
                    Capability.QUANTIZED_BASE,
                }
            ),
        )
    ]
