"""Methods that rescale what a base computes: a number for a channel, and no new layers."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

_BOTH = frozenset(
    {
        Capability.TRAIN,
        Capability.IDENTITY_START,
        Capability.MERGE,
        Capability.STACK,
        Capability.QUANTIZED_BASE,
        Capability.MODULE_WEIGHTS,
    }
)

IA3_OPTIONS = {
    "feedforward": "true: scale the inner activation of the mlp as well",
    "layers": 'all: the blocks to scale in, such as "0-3,8"',
}
LN_OPTIONS = {"layers": 'all, and the last norm: the blocks whose norms are tuned, such as "0-3,8"'}


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="ia3",
            summary="scales of keys, values and inner activations",
            target="adapterhub_plugins.scaling.ia3:Ia3",
            reference="arXiv 2205.05638",
            config_version=1,
            options=IA3_OPTIONS,
            preset={"learning_rate": 2e-2},
            capabilities=_BOTH | {Capability.MIXED_BATCH},
        ),
        Method(
            name="ln_tuning",
            summary="the base's norms, tuned",
            target="adapterhub_plugins.scaling.ln_tuning:LnTuning",
            reference="arXiv 2312.11420",
            config_version=1,
            options=LN_OPTIONS,
            preset={"learning_rate": 3e-3},
            capabilities=_BOTH,
        ),
    ]
