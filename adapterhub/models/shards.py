"""Write tensors as safetensors files one at a time, with the index that transformers reads.

Holds the tensor that is being written and no other; what it holds is the caller's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from adapterhub.errors import MismatchError
from adapterhub.formats.safetensors_writer import WIDTHS, SafetensorsWriter
from adapterhub.hub.files import disk

# The most that one file holds, unless a single tensor is larger.
SHARD_BYTES = 4_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A tensor to write; `dtype` is torch's name for it."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * WIDTHS[self.dtype]


def split(entries: Sequence[Entry], *, most: int = SHARD_BYTES) -> list[list[Entry]]:
    """The entries of each file, in their order. Wider types come first within a file, so that every
    tensor begins at a multiple of its own width."""
    files: list[list[Entry]] = []
    room = -1
    for entry in entries:
        if entry.size > room:
            files.append([])
            room = most
        files[-1].append(entry)
        room -= entry.size
    return [sorted(file, key=lambda entry: -WIDTHS[entry.dtype]) for file in files]


def write_shards(
    folder: Path,
    entries: Sequence[Entry],
    read: Callable[[str], Any],
    *,
    most: int = SHARD_BYTES,
    on_tensor: Callable[[Entry], None] = lambda _: None,
) -> int:
    """Write what `read` gives for each name; returns the bytes of all tensors.

    Raises MismatchError for a value that is not finite in its type.
    """
    files = split(entries, most=most)
    places: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        name = "model.safetensors"
        if len(files) > 1:
            name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        path = folder / name
        with disk("write", path), path.open("wb") as stream:
            writer = SafetensorsWriter(stream, {e.name: (e.dtype, e.shape) for e in file})
            for entry in file:
                writer.add(entry.name, entry.shape, _bytes_of(read(entry.name), entry))
                on_tensor(entry)
            writer.finish()
        places.update(dict.fromkeys((entry.name for entry in file), name))
    total = sum(entry.size for entry in entries)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        text = json.dumps(index, indent=2)
        with disk("write", folder):
            (folder / "model.safetensors.index.json").write_text(f"{text}\n")
    return total


def _bytes_of(value: Any, entry: Entry) -> Any:
    import torch

    stored = value.detach().to(device="cpu", dtype=getattr(torch, entry.dtype)).contiguous()
    if not torch.isfinite(stored).all():
        raise MismatchError(
            f"{entry.name} is not finite in {entry.dtype}",
            hint="`adapterhub verify` checks the adapter's weights; a wider type may hold them",
        )
    return memoryview(stored.flatten().view(torch.uint8).numpy())
