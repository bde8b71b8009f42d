"""Methods that go through peft."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

_CAPABILITIES = frozenset(
    {
        Capability.TRAIN,
        Capability.IDENTITY_START,
        Capability.MERGE,
        Capability.STACK,
        Capability.QUANTIZED_BASE,
        Capability.MIXED_BATCH,
    }
)


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="lora",
            summary="low-rank deltas beside the weights",
            target="adapterhub_plugins.peft.lora:Lora",
            reference="arXiv 2106.09685",
            config_version=1,
            capabilities=_CAPABILITIES,
        ),
        Method(
            name="qlora",
            summary="lora on an NF4 base, trained as in the QLoRA paper",
            target="adapterhub_plugins.peft.qlora:QLora",
            reference="arXiv 2305.14314",
            config_version=1,
            capabilities=_CAPABILITIES,
            stored_as="lora",
            preset={
                "optimizer": "paged_adamw8bit",
                "checkpointing": True,
                "learning_rate": 2e-4,
                "schedule": "constant",
                "batch_size": 16,
                "clip": 0.3,
            },
        ),
    ]
