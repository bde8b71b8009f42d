"""A file of rows as a task.

Knows no plugin and no engine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Item, TaskData
from adapterhub.formats.rows import read_rows, row_adapter, row_to_messages

LONGEST_REPLY = 512


def file_task(path: Path, *, limit: int | None = None, seed: int = 0) -> TaskData:
    """Every row of the file, or `limit` of them drawn by `seed` and kept in the file's order.

    Raises what `read_rows` and `row_to_messages` raise; every row is checked, drawn or not.
    """
    items = []
    for line, row in read_rows(path):
        messages, answer = row_to_messages(row, line, path.name)
        adapter = row_adapter(row, line, path.name)
        items.append(Item(messages=messages, answer=answer, adapter=adapter))
    items = drawn(items, limit, seed=seed)
    return TaskData(
        name=path.name,
        items=tuple(items),
        digest=items_digest(items),
        max_new_tokens=reply_limit(items),
    )


def drawn(items: list[Item], limit: int | None, *, seed: int) -> list[Item]:
    """At most `limit` of them, in their order."""
    if limit is None or limit >= len(items):
        return items
    # Drawn and not cut, because files are often sorted.
    source = random.Random(seed)
    order = sorted(range(len(items)), key=lambda _: source.random())
    return [items[index] for index in sorted(order[:limit])]


def items_digest(items: list[Item]) -> str:
    """sha256 over the items as chat rows, whichever form the file wrote them in, each with the
    adapter that it names, if any."""
    return digest_of(
        [
            {
                "messages": [
                    *({"role": turn.role, "content": turn.content} for turn in item.messages),
                    {"role": "assistant", "content": item.answer},
                ],
                **({"adapter": item.adapter} if item.adapter is not None else {}),
            }
            for item in items
        ]
    )


def reply_limit(items: Sequence[Item]) -> int:
    """Room for the longest answer: a token of a byte-level vocabulary is a byte at least."""
    longest = max(len(item.answer.encode()) for item in items)
    return min(LONGEST_REPLY, longest + 8)
