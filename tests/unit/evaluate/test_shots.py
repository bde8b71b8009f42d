"""Few-shot examples are chosen by rows that are never among them."""

from __future__ import annotations

import pytest

from adapterhub.domain.evaluation import Item, Message
from adapterhub.errors import UsageError

pytest.importorskip("torch")

from adapterhub.evaluate.shots import best_of, choose, most_trials, split_rows

pytestmark = pytest.mark.models


def item(question: str, answer: str = "a", *before: tuple[str, str]) -> Item:
    turns = [*before, ("user", question)]
    messages = tuple(Message(role=r, content=t) for r, t in turns)  # type: ignore[arg-type]
    return Item(messages=messages, answer=answer)


def good_when_high(examples: tuple[int, ...]) -> float:
    """The larger the indices the better, most of all the last."""
    return sum(examples) + examples[-1]


def test_the_best_is_improved_place_by_place() -> None:
    tried = choose(40, 3, good_when_high, trials=12, seed=1)
    drawn = [one for one in tried if one.how == "random"]
    assert len(drawn) == 12
    assert len(tried) <= most_trials(40, 3, trials=12) == 24
    assert best_of(tried).score > best_of(drawn).score
    assert best_of(tried).how == "improved"


def test_no_set_shows_an_example_twice() -> None:
    tried = choose(6, 4, good_when_high, trials=8)
    assert all(len(set(one.examples)) == 4 for one in tried)


def test_a_seed_decides_what_is_tried() -> None:
    def sets(seed: int) -> list[tuple[int, ...]]:
        return [one.examples for one in choose(20, 2, good_when_high, trials=5, seed=seed)]

    assert sets(3) == sets(3) != sets(4)


def test_a_pool_of_one_is_tried_once() -> None:
    assert [one.examples for one in choose(1, 1, good_when_high, trials=9)] == [(0,)]


def test_more_examples_than_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="3 examples cannot be chosen out of 2 rows"):
        choose(2, 3, good_when_high, trials=1)


def test_a_row_that_judges_is_no_example() -> None:
    items = [item(f"q{i}") for i in range(30)]
    split = split_rows(items, judges=10, seed=5)
    assert len(split.judges) == 10
    assert sorted([*split.pool, *split.judges]) == list(range(30))


def test_an_equal_question_elsewhere_in_the_file_is_no_example_either() -> None:
    items = [item("same", str(i), ("system", str(i))) for i in range(5)] + [item("other")]
    judged = {seed: split_rows(items, judges=1, seed=seed) for seed in range(8)}
    for split in judged.values():
        asked = items[split.judges[0]].messages[-1].content
        assert all(items[i].messages[-1].content != asked for i in split.pool)


def test_a_row_of_several_turns_judges_and_is_not_shown() -> None:
    long = item("q", "a", ("user", "hello"), ("assistant", "hi"))
    split = split_rows([item("x"), long, item("y"), item("z")], judges=1, seed=0)
    assert 1 not in split.pool


@pytest.mark.parametrize(("rows", "judges"), [(1, None), (4, 4), (4, 9)])
def test_too_few_rows_are_refused(rows: int, judges: int | None) -> None:
    with pytest.raises(UsageError, match="cannot be split"):
        split_rows([item(str(i)) for i in range(rows)], judges=judges, seed=0)
