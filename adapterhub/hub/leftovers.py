"""Places to work in, and what is left of them when their owner is killed.

An owner holds a lock on the file or folder it works in, and its death releases that. Where there
are no locks, age decides. Knows paths only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DAY = 86_400.0
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def held(path: Path, create: Callable[[], int]) -> Iterator[int]:
    """The handle that `create` makes and opens at `path`, locked until the block ends."""
    while True:
        handle = create()
        try:
            if _lock(handle, path):
                yield handle
                return
        finally:
            os.close(handle)


@contextlib.contextmanager
def held_folder(path: Path) -> Iterator[None]:
    """Make a folder and hold it; deleting it is up to the block."""
    if fcntl is None:
        path.mkdir()
        yield
        return

    def create() -> int:
        while True:
            path.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # taken for a leftover just now
                return os.open(path, os.O_RDONLY | _NO_FOLLOW)

    with held(path, create):
        yield


def clear_abandoned(paths: Iterable[Path]) -> None:
    """Delete what nobody holds; what another user left and we may not delete stays."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError, BlockingIOError):
            _clear(path)


def _clear(path: Path) -> None:
    handle = _probe(path)
    try:
        if handle is not None or time.time() - path.lstat().st_mtime > DAY:
            delete(path)
    finally:
        if handle is not None:
            os.close(handle)


def delete(path: Path) -> None:
    """Delete a file, a link or a folder with all in it; what is already gone is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _lock(handle: int, path: Path) -> bool:
    """False when a sweep was faster and has deleted what was just made."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _probe(path: Path) -> int | None:
    """A handle that holds the lock of what has no owner, None where there are no locks.

    Raises BlockingIOError when it has one.
    """
    mode = path.lstat().st_mode
    if fcntl is None or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    handle = os.open(path, os.O_RDONLY | _NO_FOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return handle


def _unless_gone(_: object, path: str, info: tuple[object, BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
