"""Rows in a file to batches of token ids.

Knows examples and padding; it has never seen a model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Item
from adapterhub.domain.protocols import Example, TaskSource
from adapterhub.errors import DataError, UsageError
from adapterhub.formats.rows import read_rows, row_to_messages
from adapterhub.plugin.catalog import catalog, load_target

TASK_ROWS = 400


def load_items(data: str, *, seed: int) -> tuple[list[tuple[int, Item]], str]:
    """(line number, conversation) pairs and the rows' sha256: of a JSONL file, else of a task.

    Raises DataError naming the line of a broken row.
    """
    path = Path(data).expanduser()
    if path.is_file():
        rows = read_rows(path)
    elif "/" in data or path.suffix:
        raise UsageError(f"there is no file {data}", hint="check the path of --data")
    else:
        source: TaskSource = load_target(catalog().tasks[data].target)()
        rows = list(enumerate(source.train_rows(TASK_ROWS, seed=seed), start=1))
    items = []
    for line, row in rows:
        messages, answer = row_to_messages(row, line, path.name)
        items.append((line, Item(messages=messages, answer=answer)))
    return items, digest_of([row for _, row in rows])


def check_lengths(examples: Sequence[Example], *, limit: int, name: str) -> None:
    """Raises DataError for the first example longer than `limit` tokens: a row that was cut
    would teach half an answer."""
    for example in examples:
        if len(example.ids) > limit:
            raise DataError(
                f"{name} line {example.line} has {len(example.ids)} tokens, the limit is {limit}",
                hint="shorten or split the row, or raise --max-length (the base's own limit "
                "permitting)",
            )


def batches(examples: Sequence[Example], *, size: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches: every example once an epoch, in an order that the seed decides."""
    order = random.Random(seed)
    pool: list[int] = []
    while True:
        while len(pool) < size:
            epoch = list(range(len(examples)))
            order.shuffle(epoch)
            pool += epoch
        yield [examples[i] for i in pool[:size]]
        pool = pool[size:]


def collate(examples: Sequence[Example], *, pad: int, device: str) -> dict[str, Any]:
    """A batch as `adapterhub.domain.protocols.Objective` describes it, padded on the left.

    labels is -100 on prompts and padding. Positions count from each row's first token, which
    models with learned positions need.
    """
    import torch

    longest = max(len(example.ids) for example in examples)
    ids, mask, labels = [], [], []
    for example in examples:
        gap = longest - len(example.ids)
        start = example.answer_start
        ids.append([pad] * gap + list(example.ids))
        mask.append([0] * gap + [1] * len(example.ids))
        labels.append([-100] * (gap + start) + list(example.ids[start:]))
    attention = torch.tensor(mask, device=device)
    answers = torch.tensor(labels, device=device)
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(dim=-1) - 1).clamp(min=0),
        "labels": answers,
        "columns": (answers != -100).any(dim=0).nonzero()[:, 0] - 1,
        "examples": tuple(examples),
    }
