"""One process at a time, by a lock file that disappears with its last holder.

Where the file system has no locks, `lock` says so and the work goes on: its holders verify what
they wrote and rename it into place, and share no half-written file. `write_lock` is for those who
read, decide and write; there a file that only one process can create stands in.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from adapterhub.errors import StorageError
from adapterhub.hub.files import disk, make_folder, storage_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Note = Callable[[str], None]
PATIENCE = 2.0  # seconds of silent waiting
GIVE_UP = 60.0  # seconds for the stand-in of a lock
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@contextlib.contextmanager
def lock(path: Path, *, what: str = "", note: Note | None = None) -> Iterator[bool]:
    """Hold the lock at `path`; False where there are none. `note` is told, after two seconds, who
    is at work on `what`."""
    make_folder(path.parent)
    handle = _acquire(path, what or path.stem, note)
    try:
        yield handle is not None
    finally:
        # Removed while still held: whoever waits notices that its file has lost its name.
        if handle is not None:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)


@contextlib.contextmanager
def write_lock(path: Path, *, what: str = "") -> Iterator[None]:
    """Hold the lock at `path`, by whatever the file system has.

    Raises StorageError where it has no locks and the stand-in has been there for a minute: whether
    its maker was killed is for a person to say, since a lock that breaks itself is none.
    """
    with lock(path, what=what) as held:
        if held:
            yield
            return
        standin = path.with_suffix(".held")
        _create(standin, what or path.stem)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                standin.unlink()


def _create(standin: Path, what: str) -> None:
    since = time.monotonic()
    while True:
        with disk("lock", standin), contextlib.suppress(FileExistsError):
            handle = os.open(standin, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(handle, str(os.getpid()).encode())
            os.close(handle)
            return
        if time.monotonic() - since > GIVE_UP:
            raise StorageError(
                f"another process is at work on {what}: {standin} exists",
                hint="try again later; if nothing else is at work there, delete that file",
            )
        time.sleep(0.05)


def _acquire(path: Path, what: str, note: Note | None) -> int | None:
    if fcntl is None:
        return None
    waiting_since = time.monotonic()
    while True:
        with disk("lock", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            held = _wait(handle, path, what, note, waiting_since)
            if not held:
                os.close(handle)
                return None
            if _still_named(handle, path):
                with disk("lock", path):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, str(os.getpid()).encode(), 0)
                return handle
            os.close(handle)
        except BaseException:
            os.close(handle)
            raise


def _wait(handle: int, path: Path, what: str, note: Note | None, since: float) -> bool:
    """True once locked, False where locks do not exist."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if note else 0))
            return True
        except BlockingIOError:
            if note and time.monotonic() - since > PATIENCE:
                note(f"waiting for process {_holder(handle)}, which is at work on {what}")
                note = None
            time.sleep(0.05)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise storage_error(error, "lock", path) from error


def _still_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    return os.pread(handle, 20, 0).decode(errors="replace") or "?"
