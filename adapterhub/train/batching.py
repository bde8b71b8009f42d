"""Which examples make a step, and how they lie in rows.

Knows lengths and seeds; it has never seen a tensor.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain

from adapterhub.domain.protocols import Example
from adapterhub.domain.recipe import Batching

# Within this many batches rows are sorted by length: enough for rows alike to meet, and few enough
# that not always the same ones do.
_WINDOW = 50


def batches(
    examples: Sequence[Example], *, size: int, seed: int, batching: Batching = "padded"
) -> Iterator[list[Example]]:
    """Endless full batches: every example once an epoch, in an order that the seed decides.

    Packed ones hold the examples of padded ones; bucketed ones hold examples of similar length.
    """
    order = random.Random(seed)
    pool: list[int] = []
    while True:
        while len(pool) < size:
            epoch = list(range(len(examples)))
            order.shuffle(epoch)
            pool += epoch
        if batching == "bucketed":
            full = len(pool) - len(pool) % size
            made = _bucketed(pool[:full], examples, size, order)
            pool = pool[full:]
        else:
            made = [pool[:size]]
            pool = pool[size:]
        for batch in made:
            yield [examples[i] for i in batch]


def _bucketed(
    rows: list[int], examples: Sequence[Example], size: int, order: random.Random
) -> list[list[int]]:
    made = []
    for first in range(0, len(rows), _WINDOW * size):
        window = sorted(
            rows[first : first + _WINDOW * size], key=lambda row: len(examples[row].ids)
        )
        made += [window[start : start + size] for start in range(0, len(window), size)]
    order.shuffle(made)
    return made


def pack(examples: Sequence[Example], *, limit: int) -> list[list[Example]]:
    """The fewest rows of at most `limit` tokens, and among these the most even ones.

    First fit from the longest example on; one that is longer than `limit` has a row of its own.
    """
    fewest = len(_fit(examples, limit))
    longest = max(len(example.ids) for example in examples)
    total = sum(len(example.ids) for example in examples)
    for room in range(max(longest, -(-total // fewest)), limit):
        rows = _fit(examples, room)
        if len(rows) == fewest:
            return rows
    return _fit(examples, limit)


def _fit(examples: Sequence[Example], room: int) -> list[list[Example]]:
    rows: list[list[Example]] = []
    free: list[int] = []
    for example in sorted(examples, key=lambda e: len(e.ids), reverse=True):
        length = len(example.ids)
        place = next((i for i, left in enumerate(free) if left >= length), None)
        if place is None:
            rows.append([])
            free.append(room)
            place = len(rows) - 1
        rows[place].append(example)
        free[place] -= length
    return rows


def flat(rows: Sequence[Sequence[Example]]) -> tuple[Example, ...]:
    """The examples of rows, row by row."""
    return tuple(chain.from_iterable(rows))
