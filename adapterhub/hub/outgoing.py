"""Choose the files of a folder that a push may send.

The same rules as for a pull: known kinds of files only, nothing hidden, no links, safe names. A
recipe is sent without the places of its author's files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from adapterhub.domain.manifest import CARD_FILE, MANIFEST_FILE
from adapterhub.errors import FormatError, NotFoundError
from adapterhub.formats.card import renamed_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.recipe_file import RECIPE_FILE, published_recipe
from adapterhub.hub.files import (
    is_regular,
    link_or_copy,
    make_folder,
    regular_files,
    workspace,
)
from adapterhub.hub.folder import read_folder
from adapterhub.hub.home import cache_dir
from adapterhub.hub.paths import check_paths, is_wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """What is sent, by path in the repository, and what stays behind."""

    files: dict[str, Path]
    skipped: tuple[str, ...]


def outgoing(folder: Path, *, name: str) -> Outgoing:
    """Raises NotFoundError for an empty folder, FormatError for a link or an unsafe name."""
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder", hint="name the folder of an adapter")
    found = regular_files(folder)
    files = {path: source for path, source in found.items() if is_wanted(path)}
    if not files:
        raise NotFoundError(
            f"{folder} holds nothing that can be published",
            hint="an adapter has an adapter_config.json and an adapter_model.safetensors",
        )
    check_paths(files, name=name)
    for path, source in files.items():
        if not is_regular(source):
            raise FormatError(f"{path} in {folder} is a link", hint="put a copy in its place")
    return Outgoing(files=files, skipped=tuple(sorted(found.keys() - files.keys())))


@contextlib.contextmanager
def recording(folder: Path, allowed: frozenset[str], *, name: str) -> Iterator[Path]:
    """The folder to send: itself, or a copy whose manifest says which problems were allowed, whose
    recipe names no places and whose card is pulled by its new name. A recipe that cannot be read is
    not sent.

    A manifest that cannot be read, or inferred, cannot be added to and is sent as it is.
    """
    changed = {**_noted(folder, allowed), **_cleaned(folder, name), **_named(folder, name)}
    if not changed:
        yield folder
        return
    with workspace(cache_dir() / "tmp") as work:
        for path, source in outgoing(folder, name=name).files.items():
            target = work / path
            make_folder(target.parent)
            if path not in changed:
                link_or_copy(source, target)
        for path, data in changed.items():
            if data is not None:
                (work / path).write_bytes(data)
        yield work


def _noted(folder: Path, allowed: frozenset[str]) -> dict[str, bytes | None]:
    """The manifest with what was allowed, if that is new to it."""
    try:
        manifest = read_folder(folder).manifest if allowed else None
    except FormatError:
        return {}
    if manifest is None or allowed <= set(manifest.allowed):
        return {}
    noted = replace(manifest, allowed=tuple(sorted({*manifest.allowed, *allowed})))
    return {MANIFEST_FILE: encode_manifest(noted)}


def _named(folder: Path, name: str) -> dict[str, bytes | None]:
    """The card, if it says how to pull the adapter by another name than `name`."""
    card = folder / CARD_FILE
    if not card.is_file() or not is_regular(card):
        return {}
    data = card.read_bytes()
    try:
        renamed = renamed_card(data.decode("utf-8"), name=name).encode()
    except UnicodeDecodeError:
        return {}
    return {} if renamed == data else {CARD_FILE: renamed}


def _cleaned(folder: Path, name: str) -> dict[str, bytes | None]:
    """Each recipe that says where something lies, as it may be read by all; None if it may not."""
    made: dict[str, bytes | None] = {}
    for path, source in outgoing(folder, name=name).files.items():
        if source.name != RECIPE_FILE:
            continue
        data = source.read_bytes()
        try:
            cleaned: bytes | None = published_recipe(data, name=path)
        except FormatError:
            cleaned = None
        if cleaned != data:
            made[path] = cleaned
    return made
