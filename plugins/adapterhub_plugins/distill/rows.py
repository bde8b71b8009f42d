"""The same conversations as a student's and as a teacher's rows, and a teacher's batch of them.

Knows tokens and positions; it has never seen a probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterhub.domain.evaluation import Item
from adapterhub.domain.protocols import ChatTokens, Example
from adapterhub.errors import MismatchError

if TYPE_CHECKING:
    from torch import Tensor

_ALIGN = "choose a teacher of the student's family, or compare sorted probabilities: align=true"


def tokenized(line: int, item: Item, chat: ChatTokens) -> Example:
    prompt = chat.prompt_ids(item.messages)
    ids = (*prompt, *chat.answer_ids(item.messages, item.answer))
    return Example(ids=ids, answer_start=len(prompt), line=line)


def answer_of(example: Example) -> tuple[int, ...]:
    return example.ids[example.answer_start :]


def common_tokens(student: ChatTokens, teacher: ChatTokens, *, name: str) -> int:
    """How many logits mean a token to both; a head that is padded has more.

    Raises MismatchError unless every token has the same number on both sides.
    """
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        token, ids = min(
            (t, (ours.get(t), theirs.get(t))) for t, _ in ours.items() ^ theirs.items()
        )
        raise MismatchError(
            f"the teacher {name} has another vocabulary ({len(theirs)} tokens) than the student "
            f"({len(ours)}): {token!r} is {_number(ids[1])} to the one and {_number(ids[0])} to "
            "the other",
            hint=_ALIGN,
        )
    return int(max(ours.values())) + 1


def seen_by(teacher: ChatTokens, row: Example, item: Item) -> Example:
    """A student's answer, token by token, behind the teacher's own prompt: templates may differ,
    and end a turn in another way, where vocabularies do not."""
    prompt = teacher.prompt_ids(item.messages)
    return Example(ids=(*prompt, *answer_of(row)), answer_start=len(prompt), line=row.line)


def answers(logits: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """(logits, labels) of the tokens that count, example by example: (tokens, vocabulary) and
    (tokens,)."""
    labels = batch["labels"][:, batch["columns"] + 1]
    counted = labels != -100
    return logits[counted.to(logits.device)], labels[counted]


def padded(rows: Sequence[Example], *, pad: int) -> dict[str, Any]:
    """A teacher's batch of its own rows, padded on the left, as the loop makes the student's."""
    import torch

    longest = max(len(row.ids) for row in rows)
    gaps = [longest - len(row.ids) for row in rows]
    mask = torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps])
    labels = torch.tensor(
        [
            [-100] * (gap + row.answer_start) + list(answer_of(row))
            for gap, row in zip(gaps, rows, strict=True)
        ]
    )
    return {
        "input_ids": torch.tensor(
            [[pad] * gap + list(row.ids) for gap, row in zip(gaps, rows, strict=True)]
        ),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(dim=-1) - 1).clamp(min=0),
        "labels": labels,
        "columns": (labels != -100).any(dim=0).nonzero()[:, 0] - 1,
        "examples": tuple(rows),
    }


def paired(student: Sequence[Example], teacher: Sequence[Example]) -> tuple[list[int], list[int]]:
    """Which of the answers' tokens stand side by side when both are read from their beginnings, up
    to the end of the shorter one: places among all of the student's, and of the teacher's."""
    ours: list[int] = []
    theirs: list[int] = []
    first = second = 0
    for one, other in zip(student, teacher, strict=True):
        lengths = len(answer_of(one)), len(answer_of(other))
        ours += range(first, first + min(lengths))
        theirs += range(second, second + min(lengths))
        first, second = first + lengths[0], second + lengths[1]
    return ours, theirs


def _number(token: int | None) -> str:
    return "no token" if token is None else f"token {token}"
