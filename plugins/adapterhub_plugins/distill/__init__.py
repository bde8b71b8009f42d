"""Learning from a teacher: knowledge distillation."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Trainer, hookimpl


@hookimpl
def adapterhub_trainers() -> Sequence[Trainer]:
    return [
        Trainer(
            name="distill",
            summary="what a teacher says of each of the answer's tokens, beside the answer itself",
            target="adapterhub_plugins.distill.objective:Distillation",
            modality="causal-lm",
            teacher=True,
        )
    ]
