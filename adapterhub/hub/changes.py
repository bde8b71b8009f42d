"""What differs between two adapters' folders: config, manifest and files.

Reads small files and hashes the others; the tensors are compared by `adapterhub.compose`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.domain.manifest import MANIFEST_FILE
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.schema import to_plain
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import digests
from adapterhub.hub.folder import AdapterFolder
from adapterhub.hub.outgoing import outgoing

# Lists whose order means nothing: peft keeps these as sets, and writes them in any order.
_SETS = {"target_modules", "modules_to_save", "exclude_modules", "target_parameters"}
ABSENT = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One key, or one file, that is not the same; a side that has none says `-`."""

    key: str
    one: str
    other: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderChanges:
    config: tuple[Change, ...]
    manifest: tuple[Change, ...]
    files: tuple[Change, ...]

    @property
    def none(self) -> bool:
        return not (self.config or self.manifest or self.files)


def changes(one: AdapterFolder, other: AdapterFolder) -> FolderChanges:
    return FolderChanges(
        config=tuple(_differences(_config(one), _config(other))),
        manifest=tuple(_differences(_manifest(one), _manifest(other))),
        files=tuple(_file_changes(one.path, other.path)),
    )


def _config(folder: AdapterFolder) -> dict[str, Any]:
    """A composition is its own config."""
    if folder.composition is not None:
        return dict(_flat(to_plain(folder.composition), ""))
    return dict(_flat(folder.config or {}, ""))


def _manifest(folder: AdapterFolder) -> dict[str, Any]:
    plain = loads_strict(encode_manifest(folder.manifest), name=MANIFEST_FILE)
    return dict(_flat(plain, ""))


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        path = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{path}.")
        elif isinstance(item, list) and item and all(isinstance(one, Mapping) for one in item):
            yield from _flat({str(index): one for index, one in enumerate(item)}, f"{path}.")
        elif isinstance(item, list) and key in _SETS:
            yield path, sorted(item, key=str)
        else:
            yield path, item


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Change]:
    for key in sorted(one.keys() | other.keys()):
        mine, theirs = (_text(side, key) for side in (one, other))
        if mine != theirs:
            yield Change(key=key, one=mine, other=theirs)


def _text(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return ABSENT
    return json.dumps(values[key], ensure_ascii=False, sort_keys=True)


def _file_changes(one: Path, other: Path) -> Iterator[Change]:
    left, right = (outgoing(path, name=path.name).files for path in (one, other))
    for path in sorted(left.keys() | right.keys()):
        mine = _digest(left.get(path))
        theirs = _digest(right.get(path))
        if mine != theirs:
            yield Change(key=path, one=mine, other=theirs)


def _digest(path: Path | None) -> str:
    if path is None:
        return ABSENT
    found = digests(path)
    return f"{found.sha256[:12]} ({found.size:,} bytes)"
