"""File operations that survive a crash and say what went wrong.

Knows nothing of adapters. Every OSError that leaves this module is a StorageError.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapterhub.errors import StorageError
from adapterhub.hub.leftovers import clear_abandoned, delete, held, held_folder

CHUNK = 1 << 20
RANDOM = "[0-9a-f]" * 8  # secrets.token_hex(4), as a pattern
READ_ONLY = 0o444

_SPACE = "free some space, or point ADAPTERHUB_HOME at another disk"
_RIGHTS = "check the owner and mode of that folder, or point ADAPTERHUB_HOME at one you can write"
_FACTS = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("your disk quota is used up", _SPACE),
    errno.EFBIG: ("the file is larger than this disk or `ulimit -f` allows", _SPACE),
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("operation not permitted", _RIGHTS),
    errno.EROFS: ("the file system is read-only", _RIGHTS),
    errno.EMFILE: ("this process has too many open files", "raise the limit: ulimit -n 4096"),
    errno.ENFILE: ("the system has too many open files", "close other programs and try again"),
    errno.EIO: ("the disk reported an input/output error", "check the disk, then try again"),
    errno.ELOOP: ("a symbolic link is in the way", "remove the link, then try again"),
}
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Digests:
    """What a file's bytes hash to, read once."""

    size: int
    sha256: str
    git_blob: str


@contextlib.contextmanager
def disk(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside into a StorageError: `cannot <doing> <path>: <fact>`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, path) from error


def storage_error(error: OSError, doing: str, path: Path) -> StorageError:
    fallback = (error.strerror or type(error).__name__).lower()
    fact, hint = _FACTS.get(error.errno or 0, (fallback, f"look at {path.parent}, then try again"))
    return StorageError(f"cannot {doing} {path}: {fact}", hint=hint)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, so that they are still there after a power cut."""
    with disk("create", path):
        if not path.is_dir():
            missing = [path, *(parent for parent in path.parents if not parent.is_dir())]
            path.mkdir(parents=True, exist_ok=True)
            for made in missing:
                sync_folder(made.parent)
    return path


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable; a system that cannot sync folders is left alone."""
    with disk("sync", path):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise
        finally:
            os.close(handle)


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    with disk("write", path), path.open("rb") as file:
        os.fsync(file.fileno())


def atomic_write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file: readers see the old bytes or the new ones, and so does a crash."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with disk("write", path):
        clear_abandoned(path.parent.glob(f".{glob.escape(path.name)}.{RANDOM}.tmp"))
        try:
            with held(temporary, lambda: os.open(temporary, flags, mode)) as handle:
                _write_all(handle, data)
                os.fsync(handle)
                os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):  # what went wrong first is what to say
                temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def _write_all(handle: int, data: bytes) -> None:
    with os.fdopen(handle, "wb", closefd=False) as file:
        file.write(data)


@contextlib.contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """A new folder in `root` that goes with the block; those whose process was killed go first."""
    make_folder(root)
    folder = root / secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        with disk("work in", root):
            clear_abandoned(root.iterdir())
            stack.enter_context(held_folder(folder))
        try:
            yield folder
        finally:
            delete_tree(folder)


def install(temporary: Path, target: Path) -> None:
    """Give a complete, synced file its final name and make it read-only."""
    make_folder(target.parent)
    with disk("write", target):
        temporary.chmod(READ_ONLY)
        os.replace(temporary, target)
    sync_folder(target.parent)


def copy_synced(source: Path, target: Path) -> Digests:
    """Copy to a new file, hashing what was really written. Raises if `target` exists."""
    sha256, chunks = hashlib.sha256(), 0
    with disk("copy", source):
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with source.open("rb") as reader, os.fdopen(handle, "wb") as writer:
            blob = hashlib.sha1(
                b"blob %d\0" % os.fstat(reader.fileno()).st_size, usedforsecurity=False
            )
            while chunk := reader.read(CHUNK):
                sha256.update(chunk)
                blob.update(chunk)
                chunks += writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
    return Digests(size=chunks, sha256=sha256.hexdigest(), git_blob=blob.hexdigest())


def link_or_copy(source: Path, target: Path) -> None:
    """Put the same bytes under a second name; a copy where the file system has no hard links."""
    with disk("write", target):
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            copy_synced(source, target)
            target.chmod(READ_ONLY)


def digests(path: Path) -> Digests:
    """Hash a regular file; a symbolic link in its place is an error, not followed."""
    sha256 = hashlib.sha256()
    with disk("read", path):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as file:
            size = os.fstat(handle).st_size
            blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            while chunk := file.read(CHUNK):
                sha256.update(chunk)
                blob.update(chunk)
    return Digests(size=size, sha256=sha256.hexdigest(), git_blob=blob.hexdigest())


def read_bytes(path: Path, *, limit: int) -> bytes | None:
    """A whole small file, None if there is none. Raises StorageError past `limit` bytes."""
    with disk("read", path):
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
    if len(data) > limit:
        raise StorageError(f"{path} is larger than {limit} bytes", hint="it is not one of ours")
    return data


def regular_files(folder: Path) -> dict[str, Path]:
    """Relative POSIX path -> path of everything below a folder that is not itself a folder."""
    found: dict[str, Path] = {}
    with disk("list", folder):
        for parent, folders, names in os.walk(folder, onerror=_raise):
            links = [name for name in folders if (Path(parent) / name).is_symlink()]
            for name in (*names, *links):
                path = Path(parent) / name
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def is_regular(path: Path) -> bool:
    """A plain file: no link, device or pipe."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def delete_tree(path: Path) -> None:
    """Delete a file, a link or a folder with all in it; what is already gone is fine."""
    with disk("delete", path):
        delete(path)


def sweep_folder(folder: Path, *, older_than: float) -> None:
    """Delete what lies directly in a folder and was last changed `older_than` seconds ago."""
    horizon = time.time() - older_than
    with disk("sweep", folder):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                if path.lstat().st_mtime < horizon:
                    delete_tree(path)


def _raise(error: OSError) -> None:
    raise error
