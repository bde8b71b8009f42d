"""Draw distinct numbers and build the rows and items of a task from question and answer.

Knows neither dates nor records.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Item, Message, TaskData


def distinct(size: int, n: int, *, seed: int) -> Iterator[int]:
    """n numbers below `size`, none twice before every one was drawn.

    A shorter draw is the beginning of a longer one. Only `Random.random` is used, the one method
    whose numbers Python promises to keep between its versions.
    """
    source = random.Random(seed)
    seen: set[int] = set()
    for _ in range(n):
        number = int(source.random() * size)
        while number in seen:
            number = int(source.random() * size)
        seen.add(number)
        if len(seen) == size:
            seen.clear()
        yield number


def chat_row(system: str, question: str, answer: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def task_data(
    name: str, system: str, pairs: Sequence[tuple[str, str]], *, max_new_tokens: int
) -> TaskData:
    """(question, answer) pairs as a task; the digest is over prompts and answers."""
    items = tuple(
        Item(
            messages=(
                Message(role="system", content=system),
                Message(role="user", content=question),
            ),
            answer=answer,
        )
        for question, answer in pairs
    )
    digest = digest_of([chat_row(system, question, answer) for question, answer in pairs])
    return TaskData(name=name, items=items, digest=digest, max_new_tokens=max_new_tokens)
