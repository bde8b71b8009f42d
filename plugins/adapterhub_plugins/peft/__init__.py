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
        Capability.MODULE_WEIGHTS,
    }
)

OPTIONS = {
    "rank": "8: of each delta",
    "alpha": "twice the rank: the deltas are scaled by alpha/rank",
    "dropout": "0: share of the input dropped while training",
    "targets": "all-linear (default), attention, mlp, or names of layers",
    "rslora": "false: scale by alpha/sqrt(rank), for high ranks",
    "dora": "false: train the length of each row beside its direction, for low ranks",
    "init": "default (B is zero), orthogonal, or pissa (the base's principal directions)",
    "rank_pattern": "none: ranks by pattern of a layer's name, such as {q_proj = 16}",
    "alpha_pattern": "none: alphas by pattern of a layer's name",
    "layers": 'all: the blocks to adapt, such as "0-3,8"',
}
QLORA_OPTIONS = {
    **OPTIONS,
    "rank": "64: of each delta",
    "alpha": "16: the deltas are scaled by alpha/rank",
    "dropout": "0.1: share of the input dropped while training",
}


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
            options=OPTIONS,
        ),
        Method(
            name="qlora",
            summary="lora on an NF4 base, trained as in the QLoRA paper",
            target="adapterhub_plugins.peft.qlora:QLora",
            reference="arXiv 2305.14314",
            config_version=1,
            capabilities=_CAPABILITIES,
            options=QLORA_OPTIONS,
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
