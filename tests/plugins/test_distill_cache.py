"""A teacher that is asked once: its samples, kept for the run or in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import Item
from adapterhub.errors import IntegrityError, MismatchError
from adapterhub.models.loader import Base
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import PAD, add_tiny_base
from adapterhub.train.data import collate, collate_packed
from tests.distilling import ITEMS, SLOT, learning
from tests.other_bases import store_lora

pytestmark = pytest.mark.models


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "bf16", home)


@pytest.fixture
def teacher(base: Base, tmp_path: Path) -> str:
    return str(store_lora(base, tmp_path / "teacher", seed=1))


# --- samples kept -----------------------------------------------------------------------------


def test_samples_in_a_folder_are_drawn_once(base: Base, teacher: str, tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "kept"), "samples": 16}
    found = []
    for _ in range(2):
        with learning(base, teacher=teacher, trainer_options=options) as run:
            found.append(run.fit())
            files = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()}
        assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
        found.append(tuple(sorted(files.items())))  # type: ignore[arg-type]
    assert found[0] == found[2]
    assert found[1] == found[3]


def test_many_samples_teach_as_the_whole_distribution(base: Base, teacher: str) -> None:
    losses = []
    for options in ({}, {"cache": True, "samples": 20_000}):
        with learning(base, teacher=teacher, trainer_options=options) as run:
            shake(run.student, seed=5)
            losses.append(run.loss()[0])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def losses_of_rows(base: Base, teacher: str, items: Sequence[tuple[int, Item]]) -> dict[int, float]:
    """The loss of each row alone, by its line, when these rows are read in this order."""
    with learning(base, teacher=teacher, trainer_options={"cache": True, "samples": 4}) as run:
        shake(run.student, seed=5)
        run.student.activate()
        return {
            row.line: float(
                run.objective.loss(base.model, collate([row], pad=PAD, device="cpu"))[0].detach()
            )
            for row in run.objective.examples(items, base.chat)
        }


def test_what_is_drawn_for_a_row_depends_on_no_other_row(base: Base, teacher: str) -> None:
    whole = losses_of_rows(base, teacher, ITEMS)
    assert losses_of_rows(base, teacher, ITEMS[::-1]) == pytest.approx(whole, rel=1e-5)
    [(line, _)] = one = ITEMS[2:3]
    assert losses_of_rows(base, teacher, one)[line] == pytest.approx(whole[line], rel=1e-5)


def test_each_token_keeps_its_samples_however_rows_share_a_batch(base: Base, teacher: str) -> None:
    made = []
    for make in (collate, partial(collate_packed, limit=64)):
        with learning(base, teacher=teacher, trainer_options={"cache": True, "samples": 4}) as run:
            shake(run.student, seed=5)
            made.append(run.loss(make)[0])
            run.examples.reverse()
            made.append(run.loss(make)[0])
    assert made == pytest.approx([made[0]] * 4, rel=1e-5)


def test_a_teacher_with_samples_kept_is_given_back_when_learning_begins(
    base: Base, teacher: str
) -> None:
    with learning(base, teacher=teacher, trainer_options={"cache": True}) as run:
        assert set(run.rack.attached) > {SLOT}
        first, last = run.fit()
        assert set(run.rack.attached) == {SLOT}
    assert last < first


@pytest.mark.parametrize("changed", [{"samples": 9}, {"temperature": 1.0}, {"seed": 3}])
def test_samples_made_in_another_way_are_refused(
    changed: dict[str, Any], base: Base, teacher: str, tmp_path: Path
) -> None:
    options = {"cache": str(tmp_path / "kept")}
    with learning(base, teacher=teacher, trainer_options=options):
        pass
    with (
        pytest.raises(MismatchError, match=f"its {next(iter(changed))} is") as caught,
        learning(base, teacher=teacher, trainer_options={**options, **changed}),
    ):
        pass
    assert "another folder" in (caught.value.hint or "")


def test_samples_of_another_teacher_are_refused(base: Base, teacher: str, tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "kept")}
    with learning(base, teacher=teacher, trainer_options=options):
        pass
    other = str(store_lora(base, tmp_path / "other", seed=9))
    with (
        pytest.raises(MismatchError, match="its teacher is"),
        learning(base, teacher=other, trainer_options=options),
    ):
        pass


def test_changed_samples_are_refused(base: Base, teacher: str, tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "kept")}
    with learning(base, teacher=teacher, trainer_options=options):
        pass
    (file,) = (tmp_path / "kept").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with (
        pytest.raises(IntegrityError, match="not what was written"),
        learning(base, teacher=teacher, trainer_options=options),
    ):
        pass


def test_samples_without_their_record_are_drawn_again(
    base: Base, teacher: str, tmp_path: Path
) -> None:
    options = {"cache": str(tmp_path / "kept")}
    with learning(base, teacher=teacher, trainer_options=options):
        pass
    (record,) = (tmp_path / "kept").glob("*.json")
    facts = json.loads(record.read_bytes())
    record.unlink()
    with learning(base, teacher=teacher, trainer_options=options):
        pass
    assert json.loads(record.read_bytes()) == facts
