"""What is stored and what is asked for agree both ways, or the adapter is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.domain.attached import check_keys, check_state
from adapterhub.errors import FormatError, MismatchError

EXPECTED = {"a.weight": (2, 3), "b.weight": (4,)}


def stored(**changes: tuple[int, ...] | None) -> dict[str, Any]:
    shapes = {**EXPECTED, **{name.replace("_", "."): shape for name, shape in changes.items()}}
    return {n: SimpleNamespace(shape=shape) for n, shape in shapes.items() if shape is not None}


def test_a_state_that_fits_is_let_through() -> None:
    check_state(stored(), EXPECTED)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (stored(a_weight=None), "lacks 1 of 2 tensors .* first a.weight"),
        (stored(c_weight=(1,)), "holds 1 tensors that its config does not use, first c.weight"),
        (stored(b_weight=(5,)), r"b.weight has shape \(5,\), but this base takes \(4,\)"),
        (stored(b_weight=(4, 1)), r"shape \(4, 1\)"),
        ({"x.weight": SimpleNamespace(shape=(1,))}, "none of the adapter's 1 tensors .* x.weight"),
        ({}, "none of the adapter's 0 tensors"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, Any], words: str) -> None:
    with pytest.raises(MismatchError, match=words) as caught:
        check_state(state, EXPECTED)
    assert caught.value.hint


def test_a_key_that_asks_for_something_unknown_is_refused() -> None:
    with pytest.raises(MismatchError, match="mine does not know 'shape' of this adapter's config"):
        check_keys("mine", {"size": 1, "shape": "round"}, ("size",))


def test_a_key_that_asks_for_nothing_does_no_harm() -> None:
    check_keys("mine", {"size": 1, "shape": None, "round": False, "names": []}, ("size",))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, 3, (True, "3", 3.0, None)),
        (float, 3, (True, "3", None)),
        (str, "x", (1, None, ["x"])),
        (bool, False, (0, None)),
        (list[str], ["a"], ("a", [1], [None], {"a": 1})),
        (dict[str, int], {"a": 1}, ([1], {"a": "b"})),
    ],
)
def test_a_required_key_has_a_value_of_its_kind(kind: Any, good: Any, bad: tuple[Any, ...]) -> None:
    check_keys("mine", {"key": good}, (), required={"key": kind})
    for value in bad:
        with pytest.raises(FormatError, match=r"adapter_config.json of this mine .* 'key' is no"):
            check_keys("mine", {"key": value}, (), required={"key": kind})


def test_a_required_key_that_is_missing_is_named() -> None:
    with pytest.raises(FormatError, match=r"adapter_config.json of this mine .* not say 'key'"):
        check_keys("mine", {}, (), required={"key": int})
