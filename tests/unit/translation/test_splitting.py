"""Neither side of the split knows the other."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from adapterhub.domain.gettext import Pair
from adapterhub.translation.splitting import chosen_catalogs, divide, folded


def pair(source: str, catalog: str) -> Pair:
    return Pair(source=source, target="가", package="app", catalog=catalog)


HELD = frozenset({("app", "b.po")})


@pytest.mark.parametrize(
    ("one", "other"),
    [("Save file", "save  FILE."), ("2 items", "“10” items!"), ("p.m.", "PM"), ("Ａ", "a")],
)
def test_case_digits_and_punctuation_make_no_difference(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_words_do() -> None:
    assert folded("Save file") != folded("Save files")
    assert folded("!") != folded("?")


def test_the_larger_group_goes_wholly_to_its_side() -> None:
    pairs = [
        pair("Open", "a.po"),
        pair("open!", "a.po"),
        pair("Open...", "b.po"),
        pair("Quit", "b.po"),
    ]
    left_out: Counter[str] = Counter()
    train, held = divide(pairs, HELD, left_out)
    assert [p.source for p in train] == ["Open", "open!"]
    assert [p.source for p in held] == ["Quit"]
    assert left_out == {"nearly the same on both sides of the split": 1}


def test_equally_many_are_held_out() -> None:
    train, held = divide([pair("Open", "a.po"), pair("Open", "b.po")], HELD, Counter())
    assert (len(train), len(held)) == (0, 1)


def test_no_text_is_on_both_sides_whatever_there_is() -> None:
    random = Random(5)
    words = ("Open", "open", "Save 1", "save 2", "Quit!", "quit", "Help")
    pairs = [pair(random.choice(words), random.choice(("a.po", "b.po"))) for _ in range(300)]
    left_out: Counter[str] = Counter()
    train, held = divide(pairs, HELD, left_out)
    assert {folded(p.source) for p in train}.isdisjoint(folded(p.source) for p in held)
    assert len(train) + len(held) + left_out.total() == 300


def test_about_a_tenth_is_held_out_by_catalog() -> None:
    pairs = [pair(f"text {n}", f"{n % 50}.po") for n in range(1000)]
    chosen = chosen_catalogs(pairs)
    assert len(chosen) == 5
    assert chosen == chosen_catalogs(reversed(pairs))


def test_where_no_catalog_is_that_small_the_smallest_is_held_out() -> None:
    pairs = [pair("one", "a.po"), pair("two", "a.po"), pair("three", "b.po")]
    assert chosen_catalogs(pairs) == {("app", "b.po")}


def test_of_a_single_catalog_nothing_is_held_out() -> None:
    assert chosen_catalogs([pair("one", "a.po")]) == frozenset()
