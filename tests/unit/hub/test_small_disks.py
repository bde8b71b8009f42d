"""Real file systems that run full at every size, or are read-only: said, survived, nothing left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapterhub.domain.refs import parse_ref
from adapterhub.errors import StorageError
from adapterhub.hub import client
from tests.disk_state import leftovers, state, wrong_objects
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")
Mount = Callable[[str], Path]
AMPLE = "size=16m,nr_inodes=1000"


def _mounted(options: str, folder: Path) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if shutil.which("mount") is None:
        return False
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """A new home on a file system with these options, each time that it is asked."""
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setenv("ADAPTERHUB_HOME", str(folder))

    def new(options: str) -> Path:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
        if not _mounted(options, folder):
            pytest.skip("mounting a file system needs root")
        return folder

    yield new
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def change(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def room(home: Path, *, files: int | None = None, pages: int | None = None) -> str:
    """The option that leaves room for so many more files or pages than there are."""
    used = os.statvfs(home)
    if files is not None:
        return f"nr_inodes={used.f_files - used.f_ffree + files}"
    return f"size={(used.f_blocks - used.f_bfree + (pages or 0)) * used.f_frsize}"


def refused(home: Path, action: Callable[[], object], option: str) -> bool:
    """Whether this was too little room, which is said; the action goes well once there is more."""
    before = state(home)
    change(home, option)
    caught = None
    try:
        action()
    except StorageError as error:
        caught = error
        assert state(home) == before
    change(home, AMPLE)
    action()
    assert wrong_objects(home) == []
    assert leftovers(home) == []
    assert caught is None or ("the disk is full" in caught.message and caught.hint)
    return caught is not None


def trials(mount: Mount, adapter: Path, rooms: list[dict[str, int]]) -> list[bool]:
    """For each of these rooms, whether it was too small for a push, and for a pull."""
    found = []
    for extra in rooms:
        home = mount(AMPLE)
        for action in (lambda: client.push(adapter, REF), lambda: client.pull(REF.on("local"))):
            found.append(refused(home, action, room(home, **extra)))
        assert contents(client.pull(REF).folder) == contents(adapter)
    return found


def test_a_disk_without_room_for_one_more_file(mount: Mount, adapter: Path) -> None:
    found = trials(mount, adapter, [{"files": count} for count in range(1, 40, 6)])
    assert True in found
    assert False in found


@pytest.mark.long
@pytest.mark.parametrize("what", ["files", "pages"])
def test_a_disk_that_is_full_at_any_point(mount: Mount, adapter: Path, what: str) -> None:
    found = trials(mount, adapter, [{what: count} for count in range(1, 40)])
    assert found.count(True) > 5
    assert False in found


def test_a_read_only_disk_still_gives_what_is_on_it(mount: Mount, adapter: Path) -> None:
    home = mount(AMPLE)
    client.push(adapter, REF)
    commit = client.pull(REF).snapshot.commit
    before = state(home)
    change(home, "ro")
    assert contents(client.pull(REF.at(commit)).folder) == contents(adapter)
    for action in (lambda: client.pull(REF), lambda: client.push(adapter, REF)):
        with pytest.raises(StorageError, match="the file system is read-only"):
            action()
    assert state(home) == before
    change(home, "rw")
    with contextlib.suppress(StorageError):
        client.pull(REF)
    assert leftovers(home) == []
