"""The loss of supervised fine-tuning: next-token cross-entropy on the answer alone.

Knows rows, tokens and logits; the loop, the optimizer and the adapter are the core's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adapterhub.domain.evaluation import Item
from adapterhub.domain.options import refuse_unknown
from adapterhub.domain.protocols import ChatTokens, Example, Teacher


class AnswerLoss:
    """`adapterhub.domain.protocols.Objective`. It has no options and no teacher."""

    def __init__(self, options: Mapping[str, Any], *, teacher: Teacher | None = None) -> None:
        refuse_unknown("sft", options, ())

    def examples(self, items: Iterable[tuple[int, Item]], chat: ChatTokens) -> list[Example]:
        made = []
        for line, item in items:
            prompt = chat.prompt_ids(item.messages)
            ids = (*prompt, *chat.answer_ids(item.messages, item.answer))
            made.append(Example(ids=ids, answer_start=len(prompt), line=line))
        return made

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        """Only the logits that predict an answer are computed: the head is a fifth of a small
        model's work."""
        from torch.nn.functional import cross_entropy

        columns = batch["columns"]
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            logits_to_keep=columns,
            use_cache=False,
        ).logits.float()
        answers = batch["labels"][:, columns + 1]
        total = cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            answers.reshape(-1),
            ignore_index=-100,
            reduction="sum",
        )
        return total, int((answers != -100).sum())
