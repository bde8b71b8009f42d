"""A method's options can be anything, and what makes no sense is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.domain import options as read
from adapterhub.errors import UsageError


def test_what_is_left_out_has_its_default() -> None:
    assert read.whole({}, "rank", 8, least=1, most=64) == 8
    assert read.number({}, "alpha", 0.5, least=0) == 0.5
    assert read.flag({}, "deep", default=True) is True
    assert read.choice({}, "shape", "round", ("round", "flat")) == "round"
    assert read.layer_numbers({}) is None


def test_an_unknown_option_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UsageError, match="mine has no option 'rnk'") as caught:
        read.refuse_unknown("mine", {"rank": 1, "rnk": 2}, ("rank", "alpha"))
    assert caught.value.hint == "its options: alpha, rank; see `adapterhub methods mine`"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0-3,8", (0, 1, 2, 3, 8)),
        ("8, 1", (1, 8)),
        ([2, 0, 2], (0, 2)),
        (5, (5,)),
        ("3", (3,)),
    ],
)
def test_layers_are_a_text_a_list_or_a_number(value: Any, found: tuple[int, ...]) -> None:
    assert read.layer_numbers({"layers": value}) == found


def whole(value: Any) -> Any:
    return read.whole({"x": value}, "x", 8, least=1, most=64)


def number(value: Any) -> Any:
    return read.number({"x": value}, "x", 1, least=0, below=1)


def flag(value: Any) -> Any:
    return read.flag({"x": value}, "x", default=False)


def choice(value: Any) -> Any:
    return read.choice({"x": value}, "x", "a", ("a", "b"))


def layers(value: Any) -> Any:
    return read.layer_numbers({"x": value}, "x")


@pytest.mark.parametrize(
    ("read_it", "values"),
    [
        (whole, [0, 65, 1.0, True, "8", None, [8]]),
        (number, [-0.1, 1, float("nan"), float("inf"), True, "0.5", None]),
        (flag, [0, 1, "true", None]),
        (choice, ["c", 1, None, ["a"]]),
        (layers, ["", "a", "3-1", "1,,2", "-1", -1, [], [True], [1.0], {}, "123456", 1.5]),
    ],
)
def test_what_makes_no_sense_is_refused(read_it: Callable[[Any], Any], values: list[Any]) -> None:
    for value in values:
        with pytest.raises(UsageError, match=r"^x "):
            read_it(value)
