"""Write a folder that is there whole or not at all.

Knows paths only; what is written is up to the block that writes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE
from adapterhub.errors import UsageError
from adapterhub.hub.files import (
    RANDOM,
    delete_tree,
    disk,
    is_regular,
    make_folder,
    regular_files,
    sync_folder,
)
from adapterhub.hub.leftovers import clear_abandoned, held_folder
from adapterhub.hub.paths import is_wanted

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


def check_free(out: Path, *, overwrite: bool = False) -> None:
    """Raises UsageError unless `out` may be written: absent, empty, or an adapter to overwrite.

    A folder that holds anything else as well, such as notes or a git clone, is never overwritten.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file", hint="name a folder that does not exist yet")
    if not any(out.iterdir()):
        return
    adapter = any((out / name).is_file() for name in (MANIFEST_FILE, CONFIG_FILE))
    if not adapter:
        raise UsageError(
            f"{out} is not empty and holds no adapter, so it is never overwritten",
            hint="name a folder that does not exist yet",
        )
    stranger = next((path for path in sorted(out.iterdir()) if not _of_an_adapter(path)), None)
    if stranger is not None:
        raise UsageError(
            f"{out} holds {stranger.name!r}, which no adapter has, so it is never overwritten",
            hint="move that away, or name a folder that does not exist yet",
        )
    if not overwrite:
        raise UsageError(
            f"{out} already holds an adapter", hint="name another folder, or add --overwrite"
        )


def _of_an_adapter(path: Path) -> bool:
    """A file that a push would send, or the loss curve that training draws."""
    return is_regular(path) and (
        is_wanted(path.name) or (path.suffix == ".png" and path.name[0] != ".")
    )


@contextlib.contextmanager
def staged_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside `out` that becomes `out` if the block ends well and vanishes if not."""
    out = out.absolute()
    check_free(out, overwrite=overwrite)
    make_folder(out.parent)
    sweep_beside(out)
    stage = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    with contextlib.ExitStack() as stack:
        with disk("create", stage):
            stack.enter_context(held_folder(stage))
        try:
            yield stage
            _sync(stage)
            _swap(stage, out)
        finally:
            delete_tree(stage)


@contextlib.contextmanager
def staged_path(out: Path) -> Iterator[Path]:
    """A place for one new file or folder, which becomes `out` if the block ends well.

    Raises UsageError when `out` exists: what other tools made is never overwritten.
    """
    out = out.absolute()
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is already there", hint="name another, or remove it first")
    make_folder(out.parent)
    sweep_beside(out)
    stage = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    with contextlib.ExitStack() as stack:
        with disk("create", stage):
            stack.enter_context(held_folder(stage))
        try:
            yield stage / out.name
            _sync(stage)
            with disk("write", out):
                os.replace(stage / out.name, out)
            sync_folder(out.parent)
        finally:
            delete_tree(stage)


def sweep_beside(out: Path) -> None:
    """Delete what runs that were killed left beside `out`."""
    # Without `out`, an old folder is what a kill between two renames left of it.
    left = (".part", ".old") if out.exists() else (".part",)
    found = out.parent.glob(f".{glob.escape(out.name)}.{RANDOM}.*")
    with disk("sweep", out.parent):
        clear_abandoned(path for path in found if path.suffix in left)


def _sync(stage: Path) -> None:
    with disk("write", stage):
        for path in regular_files(stage).values():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _swap(stage: Path, out: Path) -> None:
    """Put the stage in the place of `out`; what was there is at the stage's place, or gone."""
    old = stage.with_suffix(".old")
    with disk("write", out):
        if not out.exists():
            os.replace(stage, out)
        elif not _exchange(stage, out):
            _replace(stage, out, old)
    sync_folder(out.parent)
    delete_tree(old)


def _replace(stage: Path, out: Path, old: Path) -> None:
    """Two renames. A process killed outright between them leaves the old folder as `old` only."""
    try:
        os.replace(out, old)
        os.replace(stage, out)
    except BaseException:
        if old.exists() and not out.exists():
            os.replace(old, out)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Linux's renameat2, which swaps two names at once; False where it does not exist."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
