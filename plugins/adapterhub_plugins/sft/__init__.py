"""Supervised fine-tuning on the answers of chat or prompt/completion rows."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Trainer, hookimpl


@hookimpl
def adapterhub_trainers() -> Sequence[Trainer]:
    return [
        Trainer(
            name="sft",
            summary="next-token loss on the answer's tokens only",
            target="adapterhub_plugins.sft.objective:AnswerLoss",
            modality="causal-lm",
        )
    ]
