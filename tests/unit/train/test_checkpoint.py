"""A run that was stopped goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import (
    FormatError,
    InterruptedRunError,
    StorageError,
    Terminated,
    TerminatedRunError,
    UsageError,
)
from adapterhub.formats.recipe_file import encode_recipe
from adapterhub.models.loader import Base
from adapterhub.testing.practice import objective
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.checkpoint import FILE, Checkpoint, Pace, checkpoint_folder
from adapterhub.train.find_rate import find_rate
from adapterhub.train.loop import Step
from adapterhub.train.run import Trained, train_adapter

pytestmark = pytest.mark.models

WEIGHTS = "adapter_model.safetensors"
KILLS = Path(__file__).parents[2] / "killed_runs.py"
STEPS = 6


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "bf16", home)


@pytest.fixture
def recipe(rows: Path) -> Recipe:
    """Everything that a run has to remember: dropout, buckets, evaluations, the best so far."""
    held_out = rows.with_name("held_out.jsonl")
    held_out.write_text(rows.read_text().replace('"prompt": "', '"prompt": "also '))
    return Recipe(
        base="tiny-llama-bf16",
        data=str(rows),
        eval_data=str(held_out),
        eval_every=2,
        keep="best",
        steps=STEPS,
        batch_size=3,
        learning_rate=1e-2,
        batching="bucketed",
        options={"rank": 4, "dropout": 0.2},
    )


def sha_of(trained: Trained) -> str:
    return sha256_hex((trained.folder / WEIGHTS).read_bytes())


def stop_at(number: int, how: Callable[[], BaseException] = KeyboardInterrupt) -> Any:
    def on_step(step: Step) -> None:
        if step.number == number:
            raise how()

    return on_step


def stopped(recipe: Recipe, out: Path, base: Base, at: int = 3) -> Path:
    """A run into `out` that was stopped; its checkpoint."""
    with pytest.raises(InterruptedRunError):
        train_adapter(recipe, out, base=base, on_step=stop_at(at))
    return checkpoint_folder(out)


# --- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"batching": "packed"}, {"keep": "last", "lr_ratio": 4.0}])
def test_a_run_stopped_again_and_again_makes_the_same_bytes(
    changes: dict[str, Any], recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    recipe = replace(recipe, **changes)
    calm = train_adapter(recipe, tmp_path / "calm", base=base)
    for number in range(1, STEPS):
        stopped(recipe, tmp_path / "out", base, at=number)
    said: list[str] = []
    trained = train_adapter(recipe, tmp_path / "out", base=base, say=said.append)
    assert sha_of(trained) == sha_of(calm)
    assert said[1].startswith(f"resuming at step {STEPS - 1}, from ")
    assert trained.outcome.resumed == STEPS - 1
    without = [replace(step, seconds=0.0) for step in trained.outcome.steps]
    assert without == [replace(step, seconds=0.0) for step in calm.outcome.steps]


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_run_stopped_within_a_pass_makes_the_same_bytes(
    calls: int, recipe: Recipe, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward passes of training and of evaluation alike, each of which a signal may meet."""
    calm = train_adapter(recipe, tmp_path / "calm", base=base)
    kind, left = type(objective()), [calls]
    loss = kind.loss

    def stopping(self: Any, model: Any, batch: Mapping[str, Any]) -> Any:
        done = loss(self, model, batch)
        left[0] -= 1
        if left[0] == 0:
            raise Terminated
        return done

    monkeypatch.setattr(kind, "loss", stopping)
    with pytest.raises((TerminatedRunError, Terminated)):
        train_adapter(recipe, tmp_path / "out", base=base)
    monkeypatch.undo()
    monkeypatch.setenv("ADAPTERHUB_HOME", os.environ.get("ADAPTERHUB_HOME", ""))
    assert sha_of(train_adapter(recipe, tmp_path / "out", base=base)) == sha_of(calm)


def test_early_stopping_counts_across_a_stop(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    """With a rate that only makes things worse, the first evaluation stays the best."""
    recipe = replace(
        recipe, steps=40, eval_every=1, patience=3, learning_rate=0.3, schedule="constant"
    )
    calm = train_adapter(recipe, tmp_path / "calm", base=base)
    assert calm.outcome.stopped == "early"
    stopped(recipe, tmp_path / "out", base, at=len(calm.outcome.steps) - 1)
    trained = train_adapter(recipe, tmp_path / "out", base=base)
    assert len(trained.outcome.steps) == len(calm.outcome.steps)
    assert sha_of(trained) == sha_of(calm)


# --- what lies on the disk --------------------------------------------------------------------


def test_a_stopped_run_keeps_a_checkpoint_and_writes_no_adapter(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    with pytest.raises(TerminatedRunError, match="terminated after 3 steps") as caught:
        train_adapter(recipe, tmp_path / "out", base=base, on_step=stop_at(3, Terminated))
    assert (caught.value.hint or "").startswith("run the same command again")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {".out.checkpoint"}


def test_a_run_that_cannot_be_saved_is_saved_by_the_same_command_later(
    recipe: Recipe, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = train_adapter(recipe, tmp_path / "calm", base=base)

    def full(*_: Any, **__: Any) -> None:
        raise StorageError("cannot write: no space left", hint="free some")

    with monkeypatch.context() as patch:
        patch.setattr("adapterhub.train.run.save_adapter", full)
        with pytest.raises(StorageError):
            train_adapter(recipe, tmp_path / "out", base=base)
    seen: list[Step] = []
    trained = train_adapter(recipe, tmp_path / "out", base=base, on_step=seen.append)
    assert seen == []
    assert sha_of(trained) == sha_of(calm)
    assert not checkpoint_folder(tmp_path / "out").exists()


def test_whatever_else_ends_a_run_leaves_what_was_learnt(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    calm = train_adapter(recipe, tmp_path / "calm", base=base)
    with pytest.raises(OSError, match="log"):
        train_adapter(recipe, tmp_path / "out", base=base, on_step=stop_at(4, log_is_full))
    seen: list[Step] = []
    trained = train_adapter(recipe, tmp_path / "out", base=base, on_step=seen.append)
    assert [step.number for step in seen] == [5, 6]
    assert sha_of(trained) == sha_of(calm)


def log_is_full() -> OSError:
    return OSError(28, "the log's disk is full")


def test_a_checkpoint_is_written_as_often_as_asked_and_gone_when_the_run_is_done(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    folder, seen = checkpoint_folder(tmp_path / "out"), []

    def look(step: Step) -> None:
        path = folder / FILE
        seen.append(len(json.loads(path.read_text())["steps"]) if path.is_file() else 0)

    train_adapter(replace(recipe, checkpoint_every=2), tmp_path / "out", base=base, on_step=look)
    assert seen == [0, 0, 2, 2, 4, 4]
    assert not folder.exists()


def test_by_the_clock_one_is_due_every_five_minutes_and_costs_a_fiftieth_of_the_time() -> None:
    now, taken = 0.0, [10.0, 20.0, 1.0]
    pace, written = Pace(clock=lambda: now), []
    while now < 3000:
        now += 30
        if pace.due():
            with pace.writing():
                written.append(now)
                now += taken[min(len(written), len(taken)) - 1]
    # The second waits until two of ten seconds are 2%, the third until 10 + 20 + 20 are.
    assert written == [300, 1000, 2520, 2821]
    assert not Pace(clock=lambda: now).due()


def test_a_run_that_writes_by_the_clock_makes_the_same_bytes(
    recipe: Recipe, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = train_adapter(recipe, tmp_path / "calm", base=base)
    monkeypatch.setattr("adapterhub.train.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("adapterhub.train.checkpoint.SHARE", 1.0)
    folder, seen = checkpoint_folder(tmp_path / "out"), []

    def look(step: Step) -> None:
        path = folder / FILE
        seen.append(len(json.loads(path.read_text())["steps"]) if path.is_file() else 0)

    trained = train_adapter(recipe, tmp_path / "out", base=base, on_step=look)
    assert max(seen) > 0
    assert sha_of(trained) == sha_of(calm)


def test_a_run_that_is_stopped_on_its_way_to_diverge_goes_back_as_far_afterwards(
    recipe: Recipe, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, done, kind = replace(recipe, steps=40, eval_every=50), [0], type(objective())
    loss = kind.loss

    def exploding(self: Any, model: Any, batch: Mapping[str, Any]) -> Any:
        made, count = loss(self, model, batch)
        return (made * 100 if done[0] >= 10 else made), count

    def go_on(step: Step) -> None:
        done[0] = step.number

    def stop(step: Step) -> None:
        done[0] = step.number
        if step.number == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(kind, "loss", exploding)
    calm = train_adapter(lost, tmp_path / "calm", base=base, on_step=go_on)
    assert (calm.outcome.stopped, calm.outcome.kept) == ("diverged", 9)
    done[0] = 0
    with pytest.raises(InterruptedRunError):
        train_adapter(lost, tmp_path / "out", base=base, on_step=stop)
    trained = train_adapter(lost, tmp_path / "out", base=base, on_step=go_on)
    assert (trained.outcome.stopped, trained.outcome.kept) == ("diverged", 9)
    assert sha_of(trained) == sha_of(calm)


def test_a_checkpoint_is_safetensors_and_json_and_nothing_else(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    folder = stopped(recipe, tmp_path / "out", base)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]


def test_what_a_killed_writer_left_changes_nothing(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    calm = train_adapter(recipe, tmp_path / "calm", base=base)
    folder = stopped(recipe, tmp_path / "out", base)
    (folder / "state-4-00000000.safetensors").write_bytes(b"half")
    (folder / f".{FILE}.00000000.tmp").write_bytes(b"{")
    assert sha_of(train_adapter(recipe, tmp_path / "out", base=base)) == sha_of(calm)
    assert not folder.exists()


# --- another run ------------------------------------------------------------------------------


def test_another_recipe_does_not_go_on_from_it(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    folder = stopped(recipe, tmp_path / "out", base)
    with pytest.raises(UsageError, match=r"differs in steps: 6 then, 7 now") as caught:
        train_adapter(replace(recipe, steps=7), tmp_path / "out", base=base)
    assert "--restart" in (caught.value.hint or "")
    assert folder.is_dir()


def test_other_rows_do_not_go_on_from_it(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    stopped(recipe, tmp_path / "out", base)
    rows = Path(recipe.data)
    rows.write_text(rows.read_text().replace("def", "ghi"))
    with pytest.raises(UsageError, match="differs in the rows of --data"):
        train_adapter(recipe, tmp_path / "out", base=base)


def test_the_same_rows_may_lie_elsewhere(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    stopped(recipe, tmp_path / "out", base)
    moved = Path(recipe.data).rename(tmp_path / "moved.jsonl")
    trained = train_adapter(replace(recipe, data=str(moved)), tmp_path / "out", base=base)
    assert trained.outcome.resumed == 3


def test_a_restart_begins_anew(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    stopped(recipe, tmp_path / "out", base)
    trained = train_adapter(replace(recipe, steps=2), tmp_path / "out", base=base, restart=True)
    assert (trained.outcome.resumed, len(trained.outcome.steps)) == (0, 2)


@pytest.mark.parametrize("pattern", [FILE, "state-*.safetensors"])
def test_a_cut_checkpoint_is_refused(
    pattern: str, recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    [path] = stopped(recipe, tmp_path / "out", base).glob(pattern)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="no whole checkpoint"):
        train_adapter(recipe, tmp_path / "out", base=base)


# --- two at once ------------------------------------------------------------------------------


def test_two_runs_into_one_folder_are_refused_until_the_first_is_dead(
    recipe: Recipe, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterhub.hub.locks.PATIENCE", 0.0)
    ready, told = os.pipe()
    first = os.fork()
    if not first:
        with Checkpoint(folder=checkpoint_folder(tmp_path / "out"), identity={}).alone():
            os.write(told, b"!")
            signal.pause()
    try:
        os.read(ready, 1)
        with pytest.raises(UsageError, match=rf"process {first} trains into the same folder"):
            train_adapter(recipe, tmp_path / "out", base=base)
        with pytest.raises(UsageError, match=rf"process {first} trains into the same folder"):
            find_rate(recipe, tmp_path / "out", base=base)
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
    train_adapter(recipe, tmp_path / "out", base=base)
    assert {path.name for path in tmp_path.glob(".*")} == set()


# --- killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_run_goes_on_to_the_same_bytes(
    times: int, recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_bytes(encode_recipe(replace(recipe, steps=30, checkpoint_every=1)))
    # A fork can not use a CUDA device, and one thread is as good as many.
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(KILLS), str(file), str(tmp_path), str(times), "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **alone},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["resumed"] == times
    assert len(found["sha256"]) == 1
