"""Where the figures of a run go beside its folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adapterhub.errors import MissingExtraError, UsageError
from adapterhub.train.log import check_logger, open_logger, scalars
from adapterhub.train.progress import Step

pytestmark = pytest.mark.models

SETTINGS = {"steps": 3, "options": {"rank": 4}}


def step(number: int, *, eval_loss: float | None = None) -> Step:
    return Step(
        number=number,
        loss=1 / number,
        gradient_norm=0.5,
        learning_rate=1e-3,
        tokens=10 * number,
        seconds=2.0 * number,
        eval_loss=eval_loss,
    )


def test_a_step_is_five_figures() -> None:
    assert scalars(step(2, eval_loss=0.7), step(1)) == {
        "loss": 0.5,
        "eval_loss": 0.7,
        "gradient_norm": 0.5,
        "learning_rate": 1e-3,
        "tokens_per_second": 5.0,
    }


def test_what_was_not_measured_is_left_out() -> None:
    assert "eval_loss" not in scalars(step(1), None)


@pytest.mark.parametrize("kind", ["tensorboard", "trackio"])
def test_a_missing_package_names_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, kind, raising=False)
    with pytest.raises(MissingExtraError) as caught:
        check_logger(kind)
    assert f"adapterhub[{kind}]" in (caught.value.hint or "")


def test_another_log_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="no log is called 'paper'"),
        open_logger("paper", out=tmp_path / "out", settings=SETTINGS),
    ):
        pass


def test_tensorboard_shows_every_step_once_even_of_a_resumed_run(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    for first in (1, 3):
        with open_logger("tensorboard", out=tmp_path / "out", settings=SETTINGS) as log:
            for number in range(first, first + 3):
                log.step(step(number, eval_loss=0.7 if number == 4 else None))
    assert log.place == str(tmp_path / "runs" / "out")
    shown = accumulator.EventAccumulator(log.place)
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert [event.step for event in shown.Scalars("train/eval_loss")] == [4]


def test_trackio_keeps_stdout_for_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", exc_type=ImportError)
    with open_logger("trackio", out=tmp_path / "out", settings=SETTINGS) as log:
        log.step(step(1))
    assert capsys.readouterr().out == ""
    assert any((tmp_path / "trackio").iterdir())
