"""The method `vera`: two trained vectors a layer, around random matrices that nobody stores."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

ADAPTERHUB_API = 1

OPTIONS = {
    "rank": "64: of the random matrices",
    "targets": "all-linear (default), attention, mlp, or names of layers",
    "d_initial": "0.1: what every trained d starts at",
    "projection_seed": "0: what the random matrices are drawn from",
}


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="vera",
            summary="trained scales around frozen random low-rank matrices",
            target="adapterhub_vera.method:Vera",
            reference="arXiv 2310.11454",
            config_version=1,
            options=OPTIONS,
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
