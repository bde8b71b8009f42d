"""The method `vera`: two trained vectors a layer, around random matrices that nobody stores."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

ADAPTERHUB_API = 1


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="vera",
            summary="trained scales around frozen random low-rank matrices",
            target="adapterhub_vera.method:Vera",
            reference="arXiv 2310.11454",
            config_version=1,
            capabilities=frozenset(
                {
                    Capability.TRAIN,
                    Capability.IDENTITY_START,
                    Capability.MERGE,
                    Capability.STACK,
                    Capability.QUANTIZED_BASE,
                    Capability.MIXED_BATCH,
                }
            ),
        )
    ]
