"""Tasks are found by name or by path, and a wrong name is answered with a right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.errors import NotFoundError, UsageError
from adapterhub.evaluate.tasks.load import load_task


def test_a_named_task_has_fifty_held_out_items_unless_told() -> None:
    assert len(load_task("iso-dates").items) == 50
    assert len(load_task("strict-json", limit=7).items) == 7


def test_the_seed_chooses_the_items() -> None:
    assert load_task("iso-dates", seed=1) == load_task("iso-dates", seed=1)
    assert load_task("iso-dates", seed=1).digest != load_task("iso-dates", seed=2).digest


def test_a_path_is_a_file_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "./rows.jsonl", str(tmp_path / "rows.jsonl")):
        assert load_task(name).items[0].answer == "b"


def test_a_missing_file_is_not_looked_up_as_a_task(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        load_task(str(tmp_path / "rows.jsonl"))


def test_a_misspelt_task_gets_a_suggestion_and_the_way_to_name_a_file() -> None:
    with pytest.raises(NotFoundError, match="no task is called 'iso-date'") as caught:
        load_task("iso-date")
    assert caught.value.hint is not None
    assert "did you mean 'iso-dates'?" in caught.value.hint
    assert "./rows.jsonl" in caught.value.hint


def test_no_items_are_refused() -> None:
    with pytest.raises(UsageError, match="0 items measure nothing"):
        load_task("iso-dates", limit=0)
