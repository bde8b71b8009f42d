"""Bottleneck adapters: small modules beside the sublayers of each block."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="bottleneck",
            summary="small modules behind or beside the sublayers",
            target="adapterhub_plugins.bottleneck.method:Bottleneck",
            reference="arXiv 1902.00751",
            config_version=1,
            preset={"learning_rate": 2e-3},
            capabilities=frozenset(
                {
                    Capability.TRAIN,
                    Capability.IDENTITY_START,
                    Capability.STACK,
                    Capability.QUANTIZED_BASE,
                    Capability.MIXED_BATCH,
                }
            ),
        )
    ]
