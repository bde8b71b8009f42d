"""Which examples make a step: each once an epoch, in full batches, alike or packed where asked."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from adapterhub.domain.protocols import Example
from adapterhub.domain.recipe import BATCHINGS, Batching
from adapterhub.train.batching import batches, flat, pack


def example(line: int, length: int) -> Example:
    return Example(ids=tuple(range(length)), answer_start=1, line=line)


EXAMPLES = [example(line, 4 + line % 3) for line in range(10)]
MANY = [example(line, random.Random(line).randint(5, 200)) for line in range(400)]


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("size", [1, 5, 10])
def test_every_example_comes_once_an_epoch(size: int, batching: Batching) -> None:
    made = batches(EXAMPLES, size=size, seed=0, batching=batching)
    rows = (row for batch in made for row in batch)
    for _ in range(3):
        assert sorted(row.line for row in islice(rows, 10)) == list(range(10))


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("size", [3, 25])
def test_every_batch_is_full_and_no_example_is_left_behind(size: int, batching: Batching) -> None:
    made = list(islice(batches(EXAMPLES, size=size, seed=0, batching=batching), 20))
    assert {len(batch) for batch in made} == {size}
    seen = [row.line for row in flat(made)]
    counts = {seen.count(line) for line in range(10)}
    assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize("batching", BATCHINGS)
def test_a_seed_decides_the_order(batching: Batching) -> None:
    def order(seed: int) -> list[list[Example]]:
        return list(islice(batches(EXAMPLES, size=4, seed=seed, batching=batching), 6))

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_bucketed_batches_hold_rows_of_similar_length() -> None:
    def padding(batching: Batching) -> float:
        made = list(islice(batches(MANY, size=8, seed=0, batching=batching), 50))
        computed = sum(8 * max(len(row.ids) for row in batch) for batch in made)
        return 1 - sum(len(row.ids) for row in flat(made)) / computed

    assert padding("padded") > 0.3
    assert padding("bucketed") < 0.05


def test_bucketed_batches_come_in_no_order_of_length() -> None:
    made = islice(batches(MANY, size=8, seed=0, batching="bucketed"), 50)
    lengths = [len(batch[0].ids) for batch in made]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_packed_rows_hold_every_example_once_and_none_is_too_long() -> None:
    rows = pack(MANY[:40], limit=256)
    assert sorted(row.line for row in flat(rows)) == list(range(40))
    lengths = [sum(len(example.ids) for example in row) for row in rows]
    assert max(lengths) <= 256
    assert sum(lengths) / (max(lengths) * len(lengths)) > 0.9


def test_an_example_that_is_longer_than_a_row_has_one_to_itself() -> None:
    rows = pack([example(0, 300), example(1, 10), example(2, 20)], limit=256)
    assert [[row.line for row in packed] for packed in rows] == [[0], [2, 1]]
