"""Write a folder that is there whole or not at all.

Knows paths only; what is written is up to the block that writes it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE
from adapterhub.errors import UsageError
from adapterhub.hub.files import delete_tree, disk, make_folder, regular_files, sync_folder

_DAY = 86400.0


def check_free(out: Path, *, overwrite: bool = False) -> None:
    """Raises UsageError unless `out` may be written: absent, empty, or an adapter to overwrite."""
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
    if not overwrite:
        raise UsageError(
            f"{out} already holds an adapter", hint="name another folder, or add --overwrite"
        )


@contextlib.contextmanager
def staged_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside `out` that becomes `out` if the block ends well and vanishes if not."""
    out = out.absolute()
    check_free(out, overwrite=overwrite)
    make_folder(out.parent)
    _sweep(out)
    stage = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    with disk("create", stage):
        stage.mkdir()
    try:
        yield stage
        _sync(stage)
        _swap(stage, out)
    finally:
        delete_tree(stage)


def _sweep(out: Path) -> None:
    """Delete what runs that were killed a day ago or longer left beside `out`."""
    horizon = time.time() - _DAY
    for path in out.parent.glob(f".{glob.escape(out.name)}.*"):
        with contextlib.suppress(FileNotFoundError):
            if path.suffix in (".part", ".old") and path.lstat().st_mtime < horizon:
                delete_tree(path)


def _sync(stage: Path) -> None:
    with disk("write", stage):
        for path in regular_files(stage).values():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _swap(stage: Path, out: Path) -> None:
    old = stage.with_suffix(".old")
    with disk("write", out):
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(stage, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
    sync_folder(out.parent)
    delete_tree(old)
