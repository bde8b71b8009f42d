"""Write a base with adapters folded in as a plain transformers folder, tensor by tensor.

The folder is one that is being staged: whether it appears is for the caller to decide.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.quantization import Scheme
from adapterhub.formats.base_spec import encode_base
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import atomic_write, disk
from adapterhub.models.bases import SPEC_FILE, base_folder
from adapterhub.models.fingerprint import fingerprint_folder
from adapterhub.models.fold import Folding, Part, must_untie
from adapterhub.models.quiet import quiet
from adapterhub.models.shards import SHARD_BYTES, Entry, write_shards
from adapterhub.models.store import SIDE_FILES, describe
from adapterhub.models.tensors import anatomy, open_tensors

if TYPE_CHECKING:
    from adapterhub.models.loader import Base

# What a person may ask for, and torch's name for it.
FLOATS: Mapping[str, str] = {"bf16": "bfloat16", "fp16": "float16", "float32": "float32"}
_OF_PRECISION = ("quantization_config", "dtype", "torch_dtype")


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """`changed` of `tensors` are not the base's own; `untied` says whether head and embedding,
    which the base shares, are stored apart now."""

    tensors: int
    changed: int
    bytes: int
    untied: bool


def write_merged_model(
    base: Base,
    parts: Sequence[Part],
    out: Path,
    *,
    into: str,
    most: int = SHARD_BYTES,
    on_tensor: Callable[[int, int], None] = lambda _done, _total: None,
) -> Written:
    """Matrices are stored as `into`, a key of FLOATS; norms and biases in float32, as stored bases
    have them. `on_tensor` hears of bytes done and in all.

    Raises what `Folding` raises, and MismatchError for a sum that `into` cannot hold.
    """
    dtype = FLOATS[into]
    source = base_folder(base.spec.name)
    untied = must_untie(base, parts)
    atomic_write(out / "config.json", _config(source, dtype=dtype, untied=untied))
    with quiet():
        shape = anatomy(out)
    folding = Folding(base, parts, shape)
    entries = [
        Entry(
            name=name,
            shape=shape.parameters[name],
            dtype=dtype if len(shape.parameters[name]) > 1 else "float32",
        )
        for name in folding.names
    ]
    total = sum(entry.size for entry in entries)
    done = 0

    def heard(entry: Entry) -> None:
        nonlocal done
        done += entry.size
        on_tensor(done, total)

    write_shards(out, entries, folding.read, most=most, on_tensor=heard)
    for name in SIDE_FILES:
        if (source / name).is_file():
            with disk("write", out / name):
                shutil.copyfile(source / name, out / name)
    with open_tensors(out, shape):  # every parameter is there, in its shape
        pass
    return Written(tensors=len(entries), changed=len(folding.changed), bytes=total, untied=untied)


def _config(source: Path, *, dtype: str, untied: bool) -> bytes:
    """The base's, without what it says of its own precision."""
    file = source / "config.json"
    with disk("read", file):
        config: dict[str, Any] = loads_strict(file.read_bytes(), name=str(file))
    plain = {key: value for key, value in config.items() if key not in _OF_PRECISION}
    plain["dtype"] = dtype
    if untied:
        plain["tie_word_embeddings"] = False
    return f"{json.dumps(plain, indent=2, sort_keys=True)}\n".encode()


def note_base(
    folder: Path, name: str, *, floats: Path, scheme: Scheme, source: str, note: str
) -> BaseSpec:
    """Make a folder that holds a model in `scheme` one of a base called `name`: `floats` is what it
    was quantized from, or itself."""
    fingerprint = fingerprint_folder(floats)
    with quiet():
        facts = describe(folder)
    spec = BaseSpec(
        name=name,
        id=name,
        source=source,
        revision=f"sha256:{fingerprint.content}",
        scheme=scheme,
        fingerprint=fingerprint,
        note=note or None,
        **facts,
    )
    atomic_write(folder / SPEC_FILE, encode_base(spec))
    return spec
