"""Recognise a base by its files: layout, content and sketch.

Reads safetensors headers and norm tensors only; the content digest is the one full pass over
the bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterhub.domain.base import Fingerprint
from adapterhub.domain.digest import digest_of, sha256_hex
from adapterhub.errors import NotFoundError

_NORM = re.compile(r"(?:^|[._])(?:\w*norm\w*|ln_\w+)\.(?:weight|bias)$")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")


def fingerprint_folder(folder: Path, *, content: str | None = None) -> Fingerprint:
    """The fingerprint of a transformers folder with safetensors weights.

    `content` is given when the folder was converted from another file, whose bytes then count.
    """
    files = weight_files(folder)
    return Fingerprint(
        layout=_layout(files),
        sketch=sketch(_norms(files)),
        content=content or digest_of([sha256_file(file) for file in files]),
        tokenizer=_tokenizer_digest(folder),
        chat_template=_template_digest(folder),
    )


def weight_files(folder: Path) -> list[Path]:
    """Raises NotFoundError when the folder has no safetensors weights."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise NotFoundError(
            f"{folder} holds no safetensors weights",
            hint="give a folder with config.json and *.safetensors, a GGUF file or a hub id",
        )
    return files


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_norm(name: str) -> bool:
    """Whether a tensor belongs to a norm: model.norm.weight, h.0.ln_1.bias, q_norm.weight."""
    return _NORM.search(name) is not None


def sketch(norms: Mapping[str, Any]) -> str:
    """sha256 over the norm tensors in canonical little-endian float32, in order of depth.

    Tensor names are left out and equal prefixes do not matter, so that a renamed or wrapped copy
    has the same sketch; the order is that of (digits in the name, name of the leaf).
    """
    import torch

    hasher = hashlib.sha256()
    for name in sorted(norms, key=_depth):
        tensor = norms[name].detach().to(device="cpu", dtype=torch.float32).contiguous()
        hasher.update(tensor.numpy().astype("<f4", copy=False).tobytes())
    return hasher.hexdigest()


def _depth(name: str) -> tuple[list[int], str]:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    # The final norm has no number and belongs after every block.
    return (numbers or [1 << 30], ".".join(name.split(".")[-2:]))


def _norms(files: Iterable[Path]) -> dict[str, Any]:
    from safetensors import safe_open

    norms = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            norms.update(
                {name: tensors.get_tensor(name) for name in filter(is_norm, tensors.keys())}
            )
    return norms


def _layout(files: Iterable[Path]) -> str:
    from safetensors import safe_open

    rows = []
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                part = tensors.get_slice(name)
                rows.append([name, list(part.get_shape()), part.get_dtype()])
    return digest_of(sorted(rows))


def _tokenizer_digest(folder: Path) -> str | None:
    found = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    return digest_of([sha256_file(file) for file in found]) if found else None


def _template_digest(folder: Path) -> str | None:
    """Of the template's own file, or of the one inside tokenizer_config.json (older models)."""
    template = folder / "chat_template.jinja"
    if template.is_file():
        return sha256_hex(template.read_bytes())
    config = folder / "tokenizer_config.json"
    inline = json.loads(config.read_bytes()).get("chat_template") if config.is_file() else None
    return sha256_hex(inline.encode()) if isinstance(inline, str) else None
