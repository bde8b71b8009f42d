"""Locks, and what stands in for them where a file system has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.domain.refs import parse_ref
from adapterhub.errors import StorageError
from adapterhub.hub import client, locks, objects
from adapterhub.hub.files import install
from adapterhub.hub.locks import lock, write_lock
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)


def test_a_lock_says_whether_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock(tmp_path / "a.lock") as held:
        assert held
    monkeypatch.setattr(locks, "fcntl", None)
    with lock(tmp_path / "a.lock") as held:
        assert not held


@pytest.mark.usefixtures("no_locks")
def test_without_locks_one_writer_waits_for_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "GIVE_UP", 0.1)
    path = tmp_path / "w.lock"
    with (
        write_lock(path, what="user/x"),
        pytest.raises(StorageError, match=r"at work on user/x: .*w\.held exists") as caught,
        write_lock(path, what="user/x"),
    ):
        pytest.fail("two writers at once")
    assert "delete that file" in (caught.value.hint or "")
    with write_lock(path):
        assert path.with_suffix(".held").is_file()
    assert list(tmp_path.glob("w.*")) == []


@pytest.mark.usefixtures("no_locks")
def test_without_locks_no_two_processes_share_a_part(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.push(adapter, REF)
    parts: set[str] = set()

    def noting(part: Path, target: Path) -> None:
        parts.add(part.name)
        install(part, target)

    monkeypatch.setattr(objects, "install", noting)
    for _ in range(2):
        assert contents(client.pull(REF).folder) == contents(adapter)
        client.remove(REF)
    assert len(parts) == 2 * len(contents(adapter))
