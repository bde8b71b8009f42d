"""Rows in a file to conversations, and examples to batches of token ids.

Knows files, tasks and padding; it has never seen a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Item
from adapterhub.domain.protocols import Example, TaskSource
from adapterhub.errors import DataError, UsageError
from adapterhub.formats.rows import read_rows, row_to_messages
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.train.batching import flat, pack

TASK_ROWS = 400
EVAL_ROWS = 100

Items = Sequence[tuple[int, Item]]


def load_items(
    data: str, *, seed: int, option: str = "--data"
) -> tuple[list[tuple[int, Item]], str]:
    """(line number, conversation) pairs and the rows' sha256: of a JSONL file, else of a task.
    `option` is where it was named.

    Raises DataError naming the line of a broken row.
    """
    path = _file(data, option=option)
    if path is not None:
        return _items_of(read_rows(path), name=path.name)
    rows = list(enumerate(_task(data).train_rows(TASK_ROWS, seed=seed), start=1))
    return _items_of(rows, name=data)


def load_eval_items(data: str, *, seed: int, trained: Items) -> tuple[Items, str, int]:
    """The same of rows to evaluate on, without those that are `trained` on, and how many of a file
    that left out.

    A task gives other rows of the kind it trains on: those it holds out are what `eval` reports on,
    and a run that was stopped or kept by them would have seen them. Raises UsageError if no row is
    left.
    """
    path = _file(data, option="--eval-data")
    if path is not None:
        rows = read_rows(path)
    else:
        rows = list(enumerate(_task(data).train_rows(TASK_ROWS, seed=seed ^ 1), start=1))
    items, _ = _items_of(rows, name=path.name if path else data)
    known = {item for _, item in trained}
    kept = [place for place, (_, item) in enumerate(items) if item not in known]
    if not kept:
        raise UsageError(
            f"{data} holds the rows that are trained on, which says nothing of others",
            hint="name other rows: --eval-data FILE",
        )
    dropped = len(items) - len(kept) if path is not None else 0
    if path is None:
        kept = kept[:EVAL_ROWS]
    return [items[place] for place in kept], digest_of([rows[place][1] for place in kept]), dropped


def held_out_items(data: str, n: int, *, seed: int) -> list[Item]:
    """Items of a task that its training rows never hold; none for a file, all of which is trained
    on."""
    if _file(data, option="--data") is not None:
        return []
    return list(_task(data).held_out(n, seed=seed).items)


def _file(data: str, *, option: str) -> Path | None:
    """The path, or None for a task's name. Raises UsageError for a file that is not there."""
    path = Path(data).expanduser()
    if path.is_file():
        return path
    if "/" in data or path.suffix:
        raise UsageError(f"there is no file {data}", hint=f"check the path of {option}")
    return None


def _task(name: str) -> TaskSource:
    source: TaskSource = load_target(catalog().tasks[name].target)()
    return source


def _items_of(
    rows: Sequence[tuple[int, dict[str, Any]]], *, name: str
) -> tuple[list[tuple[int, Item]], str]:
    items = []
    for line, row in rows:
        messages, answer = row_to_messages(row, line, name)
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
        ids.append([pad] * gap + list(example.ids))
        mask.append([0] * gap + [1] * len(example.ids))
        labels.append([-100] * gap + _labels(example))
    attention = torch.tensor(mask, device=device)
    answers = torch.tensor(labels, device=device)
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(dim=-1) - 1).clamp(min=0),
        "labels": answers,
        "columns": _columns(answers),
        "examples": tuple(examples),
    }


def collate_packed(
    examples: Sequence[Example], *, limit: int, pad: int, device: str
) -> dict[str, Any]:
    """The same for several examples in a row of at most `limit` tokens, padded at its end.

    There is no mask: positions begin anew in each example, and so in the padding, which is how
    transformers tells one from the next.
    """
    import torch

    rows = pack(examples, limit=limit)
    longest = max(sum(len(example.ids) for example in row) for row in rows)
    ids, positions, labels = [], [], []
    for row in rows:
        gap = longest - sum(len(example.ids) for example in row)
        ids.append([token for example in row for token in example.ids] + [pad] * gap)
        positions.append([n for example in row for n in range(len(example.ids))] + [*range(gap)])
        labels.append([label for example in row for label in _labels(example)] + [-100] * gap)
    answers = torch.tensor(labels, device=device)
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": None,
        "position_ids": torch.tensor(positions, device=device),
        "labels": answers,
        "columns": _columns(answers),
        "examples": flat(rows),
    }


def _labels(example: Example) -> list[int]:
    return [-100] * example.answer_start + list(example.ids[example.answer_start :])


def _columns(answers: Any) -> Any:
    """Before which columns a label counts in any row."""
    return (answers != -100).any(dim=0).nonzero()[:, 0] - 1
