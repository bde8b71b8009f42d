"""The files of a base where they lie, a folder or a remote, read by ranges.

Knows files, headers and bytes. A remote is asked for what is looked at and for nothing else, so
that a base of many gigabytes is recognised by a few hundred kilobytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from adapterhub.domain.layout import Heads, heads_in
from adapterhub.domain.manifest import WEIGHTS_FILE
from adapterhub.domain.stores import Snapshot, Store
from adapterhub.errors import FormatError, IntegrityError, NotFoundError
from adapterhub.formats.safetensors_header import TensorInfo, header_length, parse_header
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import disk

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
_START = 1 << 16  # most headers end before it, so that one request brings them
_GAP = 1 << 14  # reading over so many unwanted bytes costs less than asking once more
_AT_ONCE = 8


class Files(Protocol):
    """A base's files by name, with their sizes in bytes."""

    @property
    def name(self) -> str: ...

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def read(self, file: str, start: int, end: int) -> bytes:
        """Exactly these bytes. Raises IntegrityError where there are fewer."""

    def sha256(self, file: str) -> str: ...


@dataclass(frozen=True)
class FolderFiles:
    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        return {p.name: p.stat().st_size for p in self.folder.iterdir() if p.is_file()}

    def read(self, file: str, start: int, end: int) -> bytes:
        with disk("read", self.folder / file), (self.folder / file).open("rb") as stream:
            stream.seek(start)
            return _whole(stream.read(end - start), end - start, file)

    def sha256(self, file: str) -> str:
        with disk("read", self.folder / file), (self.folder / file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class RemoteFiles:
    """One commit of a repository; a file's sha256 is the one that the store names, where it does
    (Git LFS), so that no weights are fetched to know their digest."""

    store: Store
    snapshot: Snapshot

    @property
    def name(self) -> str:
        return f"{self.snapshot.ref.id}@{self.snapshot.commit}"

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        return {entry.path: entry.size for entry in self.snapshot.files if "/" not in entry.path}

    def read(self, file: str, start: int, end: int) -> bytes:
        found = self.store.read(self.snapshot, file, offset=start, length=end - start)
        return _whole(b"".join(found), end - start, file)

    def sha256(self, file: str) -> str:
        entry = next(entry for entry in self.snapshot.files if entry.path == file)
        if entry.sha256 is not None:
            return entry.sha256
        hasher = hashlib.sha256()
        for chunk in self.store.read(self.snapshot, file):
            hasher.update(chunk)
        return hasher.hexdigest()


def _whole(data: bytes, wanted: int, file: str) -> bytes:
    if len(data) != wanted:
        raise IntegrityError(f"{file} ended early: {len(data):,} of {wanted:,} bytes came")
    return data


def document(files: Files, file: str) -> bytes | None:
    """A small file, whole; None where there is none."""
    size = files.sizes.get(file)
    return None if size is None else files.read(file, 0, size)


def config_in(files: Files) -> Mapping[str, Any]:
    """A base's config.json; empty where there is none. Raises FormatError for one that is no
    JSON."""
    config = document(files, "config.json")
    plain = loads_strict(config, name="config.json") if config is not None else {}
    return plain if isinstance(plain, dict) else {}


def weight_names(files: Files) -> list[str]:
    """The safetensors files that make up the model: those of the index, or the one. Raises
    NotFoundError when there are none or one that the index names is missing."""
    present = sorted(
        file for file in files.sizes if file.endswith(".safetensors") and file != WEIGHTS_FILE
    )
    index = document(files, INDEX)
    if index is not None:
        places = loads_strict(index, name=INDEX)
        named = places.get("weight_map") if isinstance(places, dict) else None
        if not isinstance(named, dict) or not all(isinstance(v, str) for v in named.values()):
            raise FormatError(f"{files.name}: {INDEX} has no weight_map", hint="fetch it again")
        wanted = sorted(set(named.values()))
        missing = next((file for file in wanted if file not in present), None)
        if missing is not None:
            raise NotFoundError(
                f"{files.name} lacks {missing[:200]!r}, which its index names",
                hint="fetch the model again, whole",
            )
        return wanted
    if WHOLE in present:
        return [WHOLE]
    if not present:
        raise NotFoundError(
            f"{files.name} holds no safetensors weights",
            hint="give a folder with config.json and *.safetensors, a GGUF file or a hub id",
        )
    return present


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: the file, and its first byte there."""

    file: str
    info: TensorInfo
    start: int

    @property
    def size(self) -> int:
        return self.info.end - self.info.start


@dataclass(frozen=True)
class Weights:
    """Every tensor of a base, by name; only headers have been read."""

    files: Files
    places: Mapping[str, Place]
    config: Mapping[str, Any] = field(default_factory=dict)

    def part(self, name: str, start: int, end: int) -> bytes:
        """Bytes of one tensor, counted from its first."""
        place = self.places[name]
        return self.files.read(place.file, place.start + start, place.start + end)

    def whole(self, name: str) -> bytes:
        return self.part(name, 0, self.places[name].size)

    def several(self, names: Iterable[str]) -> dict[str, bytes]:
        """Whole tensors; those that lie close together are read as one, several at once."""
        spans: list[tuple[str, int, int, list[str]]] = []
        for name in sorted(names, key=lambda n: (self.places[n].file, self.places[n].start)):
            place = self.places[name]
            last = spans[-1] if spans else None
            if last and last[0] == place.file and place.start - last[2] <= _GAP:
                spans[-1] = (last[0], last[1], place.start + place.size, [*last[3], name])
            else:
                spans.append((place.file, place.start, place.start + place.size, [name]))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            read = list(pool.map(lambda span: self.files.read(*span[:3]), spans))
        found = {}
        for (_, start, _, inside), data in zip(spans, read, strict=True):
            for name in inside:
                first = self.places[name].start - start
                found[name] = data[first : first + self.places[name].size]
        return found

    @property
    def heads(self) -> Heads | None:
        """The attention heads that the config states."""
        return heads_in(self.config)


def read_weights(files: Files) -> Weights:
    """Raises NotFoundError without safetensors weights, FormatError for a malformed file."""
    places: dict[str, Place] = {}
    for file in weight_names(files):
        size = files.sizes[file]
        start = files.read(file, 0, min(size, _START))
        needed = header_length(start, size, name=file)
        if needed > len(start):
            start += files.read(file, len(start), needed)
        header = parse_header(start, size, name=file)
        for name, info in header.tensors.items():
            places[name] = Place(file, info, header.data_start + info.start)
    return Weights(files, places, config_in(files))
