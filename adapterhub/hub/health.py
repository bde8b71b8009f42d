"""What works where adapterhub keeps its files: the disk, its locks, what killed runs left.

Looks and tries, and leaves everything as it was. Knows nothing of models.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from adapterhub.domain.health import Check
from adapterhub.errors import AdapterhubError
from adapterhub.hub.cache import cached
from adapterhub.hub.files import sync_file, sync_folder
from adapterhub.hub.home import bases_dir, cache_dir, home, registry_dir
from adapterhub.hub.locate import open_remote
from adapterhub.hub.objects import object_path, parts_dir
from adapterhub.hub.remotes import remotes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LITTLE = 5_000_000_000  # bytes: less than what adding a base of a few billion weights takes
_PREFIX = ".adapterhub-doctor-"


def storage_checks(size: Callable[[int], str]) -> Iterator[Check]:
    """`size` puts bytes into words."""
    place = _existing(home())
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as name:
            _write_and_rename(Path(name))
            locks = _locks(Path(name))
    except OSError as error:
        yield Check(
            name="home",
            state="broken",
            found=f"{home()} cannot be written: {error.strerror or error}",
            hint="correct its owner and mode, or set ADAPTERHUB_HOME to another folder",
        )
        return
    there = "" if place == home() else ", made when it is needed"
    yield Check(name="home", state="ok", found=f"{home()}{there}")
    yield _space(place, size)
    yield locks
    yield from _leftovers(size)


def remote_checks() -> Iterator[Check]:
    """Ask every remote for one name. Goes to the network."""
    for name, remote in remotes().items():
        try:
            open_remote(remote).search("", limit=1)
        except AdapterhubError as error:
            found, hint = error.message, error.hint
            yield Check(name=f"remote {name}", state="note", found=found, hint=hint)
        else:
            yield Check(name=f"remote {name}", state="ok", found=remote.uri)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _write_and_rename(folder: Path) -> None:
    (folder / "new").write_bytes(b"x")
    sync_file(folder / "new")
    os.replace(folder / "new", folder / "kept")
    sync_folder(folder)


def _locks(folder: Path) -> Check:
    """Two holders of one lock exclude each other, whether or not they are one process."""
    if fcntl is None:
        return Check(name="locks", state="note", found="none on this system; runs must not overlap")
    first, second = (os.open(folder / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Check(name="locks", state="ok", found="they exclude each other")
        return Check(
            name="locks",
            state="broken",
            found="two processes can hold the same lock: this file system only pretends",
            hint="set ADAPTERHUB_HOME to a folder on a local disk",
        )
    except OSError as error:
        return Check(
            name="locks",
            state="note",
            found=f"this file system has none ({error.strerror}); a file stands in for them",
        )
    finally:
        os.close(first)
        os.close(second)


def _space(place: Path, size: Callable[[int], str]) -> Check:
    free = shutil.disk_usage(place).free
    if free < LITTLE:
        hint = "free some, or set ADAPTERHUB_HOME to a larger disk"
        return Check(name="disk", state="note", found=f"only {size(free)} free", hint=hint)
    return Check(name="disk", state="ok", found=f"{size(free)} free")


def _leftovers(size: Callable[[int], str]) -> Iterator[Check]:
    killed = [
        *_children((cache_dir() / "tmp", cache_dir() / "damaged", parts_dir())),
        *_children((registry_dir() / "tmp",)),
        *(path for path in _children((bases_dir(),)) if path.suffix in (".part", ".old")),
    ]
    used = {entry.sha256 for item in cached() for entry in item.files}
    objects = object_path("0" * 64).parent.parent
    orphans = [path for path in _children(_children((objects,))) if path.name not in used]
    found = ", ".join(
        f"{len(paths)} {what} ({size(sum(map(_bytes, paths)))})"
        for what, paths in (("of unfinished work", killed), ("cached files of no adapter", orphans))
        if paths
    )
    if found:
        hint = "a day after a kill the next command of its kind removes what it left"
        yield Check(name="leftovers", state="note", found=found, hint=hint)
    else:
        yield Check(name="leftovers", state="ok", found="none")


def _children(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in files if file.is_file())
