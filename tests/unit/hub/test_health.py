"""The file system under adapterhub's home, tried and left as it was."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from adapterhub.hub import health
from adapterhub.hub.health import storage_checks


def states(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {check.name: check.state for check in storage_checks(str)}


def test_a_good_disk_is_fine(home: Path) -> None:
    assert states(home) == {"home": "ok", "disk": "ok", "locks": "ok", "leftovers": "ok"}
    assert list(home.iterdir()) == []


def test_locks_that_only_pretend_are_broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert states(home)["locks"] == "broken"


def test_no_locks_at_all_have_a_stand_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert states(home)["locks"] == "note"


def test_little_space_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LITTLE", 1 << 60)
    assert states(home)["disk"] == "note"
