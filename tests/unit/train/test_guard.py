"""What a run proves of itself before it goes on, and how it knows that it is lost."""

from __future__ import annotations

import os
import signal

import pytest

from adapterhub.domain.protocols import Example
from adapterhub.errors import DataError
from adapterhub.train.guard import Explosion, check_labels, uninterrupted


def seen(*made: float) -> Explosion:
    explosion = Explosion()
    for loss in made:
        explosion.see(loss)
    return explosion


def losses(*made: float) -> bool:
    """Whether these losses are an explosion."""
    return seen(*made).certain


def test_five_steps_in_a_row_above_ten_times_the_first_loss_are_an_explosion() -> None:
    assert losses(2.0, 1.0, 21, 22, 30, 50, 21)


@pytest.mark.parametrize(
    "made",
    [
        (2.0, 19, 19, 19, 19, 19, 19),
        (2.0, 21, 22, 23, 24, 1.0, 25, 26, 27),
        (0.01, 0.5, 0.5, 0.5, 0.5, 0.5, 9.0, 9.0, 9.0, 9.0, 9.0),
        (11.0, 12.0, 14.0, 13.0, 12.0, 12.0, 12.0),
    ],
    ids=["bad but stable", "bad rows among good ones", "begun from nearly nothing", "unlearnt"],
)
def test_what_may_happen_to_a_healthy_run_is_none(made: tuple[float, ...]) -> None:
    assert not losses(*made)


def test_a_model_that_says_the_same_for_good_is_lost() -> None:
    learnt = (3.0, 2.0, 1.5, 1.0, 0.5, 0.4, 0.4)
    assert losses(*learnt, *[8.0] * 20)
    assert not losses(*learnt, *[8.0] * 19)
    assert not losses(*learnt, *[8.0] * 19, 0.4, *[8.0] * 19)


@pytest.mark.parametrize(
    ("made", "calm"),
    [
        ((2.0,), True),
        ((2.0, 1.9, 1.8), True),
        ((2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.1, 1.5), True),
        ((2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.5), False),
        ((2.0, *(1.0,) * 6, 1.2, 1.5, 1.8, 2.0, 2.2, 2.4), False),
        ((2.0, *(0.01,) * 8, 0.05), True),
        ((2.0, *(-0.01,) * 8, 0.01), True),
    ],
    ids=["first", "falls", "a worse row", "jump", "slow climb", "noise near zero", "below zero"],
)
def test_what_climbs_is_nothing_to_go_back_to(made: tuple[float, ...], calm: bool) -> None:
    assert seen(*made).calm == calm


def test_the_last_steps_of_a_run_are_judged_without_a_fifth_one() -> None:
    assert seen(1.0, 1.0, 30.0, 30.0).ended_lost
    assert not seen(1.0, 1.0, 30.0).ended_lost
    assert not seen(1.0, 1.0, 30.0, 30.0, 1.0).ended_lost


def test_a_row_without_an_answer_is_named() -> None:
    rows = [
        Example(ids=(1, 2, 3), answer_start=2, line=1),
        Example(ids=(1,), answer_start=1, line=4),
    ]
    check_labels(rows[:1], name="rows.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl line 4 has no answer"):
        check_labels(rows, name="rows.jsonl")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_block_has_ended(number: signal.Signals) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before, done = signal.signal(number, stop), []

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            done.append(number)

    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert done == [number]
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
