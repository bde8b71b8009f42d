"""Learning from a teacher: knowledge distillation."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Trainer, hookimpl

OPTIONS = {
    "temperature": "2, or 1 with align: both sides' logits are divided by it",
    "divergence": "forward (default), reverse or js, between teacher and student",
    "beta": "0.5: the teacher's share in the mixture of js",
    "hard": "0.1, or 0.5 with align: share of the ordinary loss on the answer",
    "align": "false: compare sorted probabilities, for a teacher with other tokens",
    "cache": "false: ask the teacher once; true for this run, or the path of a folder",
    "samples": "64: tokens drawn for each position that is cached",
    "seed": "0: what they are drawn by",
}


@hookimpl
def adapterhub_trainers() -> Sequence[Trainer]:
    return [
        Trainer(
            name="distill",
            summary="what a teacher says of each of the answer's tokens, beside the answer itself",
            target="adapterhub_plugins.distill.objective:Distillation",
            modality="causal-lm",
            teacher=True,
            options=OPTIONS,
        )
    ]
