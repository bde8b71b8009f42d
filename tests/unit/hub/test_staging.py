"""Folders that are there whole or not at all, and what is never overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterhub.errors import UsageError
from adapterhub.hub import staging
from adapterhub.hub.staging import check_free, staged_folder
from tests.unit.hub.conftest import contents


@pytest.mark.parametrize("name", [".git/HEAD", ".env", "src/main.py", "notes.docx", "data/x.json"])
def test_a_folder_with_anything_else_is_never_overwritten(adapter: Path, name: str) -> None:
    (adapter / name).parent.mkdir(exist_ok=True)
    (adapter / name).write_text("mine")
    before = contents(adapter)
    with (
        pytest.raises(UsageError, match="never overwritten"),
        staged_folder(adapter, overwrite=True),
    ):
        pytest.fail("nothing may be written")
    assert contents(adapter) == before


@pytest.mark.parametrize("name", ["loss.png", "recipe.toml", "tokenizer.model", "README.md"])
def test_an_adapter_with_its_usual_files_may_be_overwritten(adapter: Path, name: str) -> None:
    (adapter / name).write_text("ours")
    check_free(adapter, overwrite=True)


@pytest.mark.parametrize("exchange", [True, False])
def test_the_new_folder_takes_the_place_of_the_old(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    with staged_folder(adapter, overwrite=True) as stage:
        (stage / "new.json").write_text("{}")
    assert contents(adapter) == {"new.json": b"{}"}
    assert [path.name for path in adapter.parent.iterdir()] == [adapter.name]


def test_what_a_killed_run_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    out, left = tmp_path / "out", tmp_path / ".out.0123abcd.part"
    left.mkdir()
    with staged_folder(out) as living:
        assert not left.exists()
        with staged_folder(out) as stage:
            (stage / "first.json").write_text("{}")
        assert living.is_dir()
        out.rename(tmp_path / "elsewhere")
        (living / "second.json").write_text("{}")
    assert contents(out) == {"second.json": b"{}"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError])
def test_a_stop_between_the_two_renames_brings_the_old_folder_back(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    before = contents(adapter)
    monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "replace", stopping_at_second(os.replace, stop))
    with pytest.raises(BaseException), staged_folder(adapter, overwrite=True) as stage:  # noqa: B017, PT011 -- whichever stop it is
        (stage / "new.json").write_text("{}")
    assert contents(adapter) == before


def stopping_at_second(
    replace: Callable[[Path, Path], None], stop: type[BaseException]
) -> Callable[[Path, Path], None]:
    calls: list[Path] = []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise stop
        replace(source, target)

    return rename
