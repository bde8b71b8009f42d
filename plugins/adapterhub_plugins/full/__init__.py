"""Full fine-tuning, stored as a difference."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Capability, Method, hookimpl

OPTIONS = {"parts": "all (default), or layers: without embeddings, last norm and head"}


@hookimpl
def adapterhub_methods() -> Sequence[Method]:
    return [
        Method(
            name="full",
            summary="all weights of an unquantized base",
            target="adapterhub_plugins.full.method:Full",
            reference="arXiv 1801.06146",
            config_version=1,
            options=OPTIONS,
            preset={"learning_rate": 5e-5},
            capabilities=frozenset(
                {
                    Capability.TRAIN,
                    Capability.IDENTITY_START,
                    Capability.MERGE,
                    Capability.STACK,
                    Capability.MODULE_WEIGHTS,
                }
            ),
        )
    ]
