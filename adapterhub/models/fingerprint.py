"""Recognise a base by its files: layout, content and sketch.

Reads safetensors headers and norm tensors only, from a folder or by ranges from a remote; in a
folder the content digest is the one full pass over the bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterhub.domain.base import Fingerprint
from adapterhub.domain.digest import digest_of, sha256_hex
from adapterhub.domain.layout import arrangement, canonical_digest
from adapterhub.models.base_files import (
    Files,
    FolderFiles,
    Weights,
    document,
    read_weights,
    weight_names,
)

_NORM = re.compile(r"(?:^|[._])(?:\w*norm\w*|ln_\w+)\.(?:weight|bias)$")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
# What packed weights are made of: their shapes are not those of the matrices they stand for.
_PACKED = (".quant_map", ".SCB", ".qweight", ".weight_scale", ".weight_scale_inv", ".weight_packed")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def fingerprint_folder(folder: Path, *, content: str | None = None) -> Fingerprint:
    """The fingerprint of a transformers folder with safetensors weights.

    `content` is given when the folder was converted from another file, whose bytes then count.
    """
    return fingerprint(read_weights(FolderFiles(folder)), content=content)


def fingerprint(weights: Weights, *, content: str | None = None) -> Fingerprint:
    """The fingerprint of a base, wherever its files lie."""
    files = weights.files
    infos = {name: place.info for name, place in weights.places.items()}
    shapes = {name: info.shape for name, info in infos.items()}
    packed = any(name.endswith(_PACKED) for name in shapes)
    tied = bool(weights.config.get("tie_word_embeddings"))
    return Fingerprint(
        layout=digest_of(sorted([n, list(info.shape), info.dtype] for n, info in infos.items())),
        sketch=sketch(norms(weights)),
        content=content or digest_of([files.sha256(file) for file in weight_names(files)]),
        tokenizer=_tokenizer_digest(files),
        chat_template=_template_digest(files),
        canonical=None if packed else canonical_digest(shapes, weights.heads, tied=tied),
        arrangement=arrangement(shapes),
    )


def weight_files(folder: Path) -> list[Path]:
    """Raises NotFoundError when the folder has no safetensors weights."""
    return [folder / name for name in weight_names(FolderFiles(folder))]


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


def norms(weights: Weights) -> dict[str, Any]:
    """Every norm tensor by name. Raises nothing for a base without any: its sketch is empty."""
    import torch

    found = {}
    for name, data in weights.several(filter(is_norm, weights.places)).items():
        info = weights.places[name].info
        dtype = getattr(torch, DTYPES[info.dtype])
        found[name] = torch.frombuffer(bytearray(data), dtype=dtype).reshape(info.shape)
    return found


def _tokenizer_digest(files: Files) -> str | None:
    found = [name for name in _TOKENIZER_FILES if name in files.sizes]
    return digest_of([files.sha256(name) for name in found]) if found else None


def _template_digest(files: Files) -> str | None:
    """Of the template's own file, or of the one inside tokenizer_config.json (older models)."""
    template = document(files, "chat_template.jinja")
    if template is not None:
        return sha256_hex(template)
    config = document(files, "tokenizer_config.json")
    inline = json.loads(config).get("chat_template") if config is not None else None
    return sha256_hex(inline.encode()) if isinstance(inline, str) else None
