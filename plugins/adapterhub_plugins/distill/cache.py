"""Keep a teacher's samples in a folder, and use them again for what they were made from only.

One safetensors file for each set of rows, and beside it, written last, a JSON file that says whose
samples these are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from adapterhub.domain.digest import canonical_json, sha256_hex
from adapterhub.errors import FormatError, IntegrityError, MismatchError, StorageError
from adapterhub_plugins.distill.samples import Sampled

_PARTS = ("ids", "weights", "offsets", "entropy")


def load_samples(folder: Path, facts: dict[str, Any]) -> Sampled | None:
    """The samples of the rows that `facts` name, or None if there are none yet.

    Raises MismatchError when they were made in another way, IntegrityError for changed bytes.
    """
    tensors, record = _places(folder, facts)
    if not (record.is_file() and tensors.is_file()):
        return None
    try:
        text, data = record.read_bytes(), tensors.read_bytes()
    except OSError as error:
        raise _refused("read", folder, error) from error
    kept = _decoded(record, text)
    sha256 = kept.pop("sha256", None)
    differing = sorted(key for key in {*kept, *facts} if kept.get(key) != facts.get(key))
    if differing:
        raise MismatchError(
            f"{record} holds the samples of another run: its {differing[0]} is "
            f"{kept.get(differing[0])!r}, here it is {facts.get(differing[0])!r}",
            hint="name another folder as cache, or remove this one",
        )
    if sha256_hex(data) != sha256:
        raise IntegrityError(
            f"{tensors} is not what was written", hint="remove it; the teacher is asked again"
        )
    return _sampled(tensors, data)


def save_samples(folder: Path, facts: dict[str, Any], sampled: Sampled) -> None:
    """Write both files, each whole or not at all."""
    from safetensors.torch import save

    tensors, record = _places(folder, facts)
    data = save({part: getattr(sampled, part).contiguous() for part in _PARTS})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(tensors, data)
        _write(record, canonical_json({**facts, "sha256": sha256_hex(data)}))
    except OSError as error:
        raise _refused("write", folder, error) from error


def _places(folder: Path, facts: dict[str, Any]) -> tuple[Path, Path]:
    stem = f"teacher-{facts['data'][:16]}"
    return folder / f"{stem}.safetensors", folder / f"{stem}.json"


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _decoded(path: Path, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}", hint="remove it") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} is no record of samples", hint="remove it")
    return value


def _sampled(path: Path, data: bytes) -> Sampled:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        return Sampled(**{part: tensors[part] for part in _PARTS})
    except (SafetensorError, KeyError) as error:
        raise FormatError(f"{path} holds no samples: {error}", hint="remove it") from error


def _refused(verb: str, folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot {verb} the teacher's samples in {folder}: {error.strerror}",
        hint="name a folder of your own as cache",
    )
