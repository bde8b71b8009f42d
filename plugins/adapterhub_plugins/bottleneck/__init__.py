"""Bottleneck adapters: small modules beside the sublayers of each block."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

OPTIONS = {
    "placement": "pfeiffer (default: behind the mlp), houlsby (attention too) or parallel",
    "reduction": "16: the base's hidden size over that of the bottleneck",
    "nonlinearity": "relu (default), gelu, silu or tanh, in the bottleneck",
    "scaling": "4: what the module's answer is multiplied by; with placement=parallel only",
    "dropout": "0: share of the bottleneck dropped while training",
    "layers": 'all: the blocks to put one in, such as "0-3,8"',
}


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="bottleneck",
            summary="small modules behind or beside the sublayers",
            target="adapterhub_plugins.bottleneck.method:Bottleneck",
            reference="arXiv 1902.00751",
            config_version=1,
            options=OPTIONS,
            preset={"learning_rate": 2e-3},
            capabilities=frozenset(
                {
                    Capability.TRAIN,
                    Capability.IDENTITY_START,
                    Capability.STACK,
                    Capability.QUANTIZED_BASE,
                    Capability.MIXED_BATCH,
                    Capability.MODULE_WEIGHTS,
                }
            ),
        )
    ]
