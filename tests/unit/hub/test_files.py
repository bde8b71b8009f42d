"""File operations and locks."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from adapterhub.domain.digest import git_blob_id, sha256_hex
from adapterhub.errors import StorageError
from adapterhub.hub import files
from adapterhub.hub.cache import sweep
from adapterhub.hub.home import cache_dir
from adapterhub.hub.locks import lock


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "too many open files"),
        (errno.EIO, "input/output error"),
        (errno.ENOTEMPTY, "directory not empty"),
    ],
)
def test_an_os_error_becomes_a_sentence_with_a_next_move(
    tmp_path: Path, number: int, says: str
) -> None:
    target = tmp_path / "x"
    with (
        pytest.raises(StorageError, match=f"cannot write {target}: .*{says}") as caught,
        files.disk("write", target),
    ):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint


def test_a_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x"
    files.atomic_write(target, b"one")
    files.atomic_write(target, b"two", mode=0o600)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_keeps_the_old_bytes(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.mkdir()
    with pytest.raises(StorageError):
        files.atomic_write(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_digests_are_those_of_git_and_of_sha256(tmp_path: Path) -> None:
    data = b"adapter" * 400_000
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(data)
    expected = files.Digests(size=len(data), sha256=sha256_hex(data), git_blob=git_blob_id(data))
    assert files.copy_synced(source, target) == files.digests(target) == expected


def test_a_link_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StorageError, match="symbolic link"):
        files.digests(tmp_path / "b")
    assert list(files.regular_files(tmp_path)) == ["a", "b"]


def test_another_disk_gets_a_copy(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    source, target = other / f"adapterhub-{os.getpid()}", tmp_path / "copy"
    source.write_bytes(b"bytes")
    try:
        files.link_or_copy(source, target)
    finally:
        source.unlink()
    assert target.read_bytes() == b"bytes"
    assert target.stat().st_mode & 0o777 == 0o444


def test_a_lock_lets_one_in_at_a_time_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "x.lock"
    inside: list[int] = []

    def work() -> None:
        for _ in range(20):
            with lock(path):
                inside.append(1)
                assert len(inside) == 1
                time.sleep(0.001)
                inside.clear()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(path.parent.iterdir()) == []


def test_whoever_waits_long_is_told_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    notes: list[str] = []

    def wait() -> None:
        with lock(path, what="user/x", note=notes.append):
            pass

    with lock(path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(2.3)
    thread.join()
    assert notes == [f"waiting for process {os.getpid()}, which is at work on user/x"]


def test_what_killed_processes_left_is_swept_but_for_what_the_next_pull_can_use() -> None:
    work, lately, long_ago = (
        cache_dir() / name for name in ("tmp/dead/x", "parts/new.part", "parts/old.part")
    )
    for path in (work, lately, long_ago):
        files.make_folder(path.parent)
        path.write_bytes(b"x")
    os.utime(long_ago, (time.time() - 90_000,) * 2)
    sweep()
    assert not work.parent.exists()
    assert not long_ago.exists()
    assert lately.exists()


def test_what_a_living_process_works_in_stays_however_old_it_is(tmp_path: Path) -> None:
    with files.workspace(tmp_path) as mine:
        os.utime(mine, (time.time() - 90_000,) * 2)
        with files.workspace(tmp_path):
            assert mine.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    left, others = tmp_path / ".a.json.0123abcd.tmp", tmp_path / ".b.json.0123abcd.tmp"
    left.write_text("half")
    others.write_text("half")
    files.atomic_write(tmp_path / "a.json", b"{}")
    assert not left.exists()
    assert others.exists()
