"""The files of a converted adapter: config, weights, manifest with the one it was made from, card.

Writes into the folder it is given; computes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub import __version__
from adapterhub.compose.members import Member
from adapterhub.domain.manifest import (
    CARD_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    BaseRecord,
    Manifest,
    Parent,
)
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

# An adapter brings these where they differ from its base's.
_TEXT_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip


def write_converted(
    folder: Path,
    source: Member,
    *,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    base: BaseRecord,
    conversion: str,
    name: str,
    method: str | None = None,
    allowed: tuple[str, ...] = (),
) -> None:
    """`state` is as peft names it; with none, no weights are written. `conversion` is the
    manifest's strategy, `method` the source's own unless it is another."""
    from safetensors.torch import save

    own = source.folder.manifest
    manifest = Manifest(
        method=method or own.method,
        config_version=1 if method else own.config_version,
        base=base,
        parents=(Parent(ref=source.ref, weight=1.0, sha256=source.sha256),),
        strategy=conversion,
        allowed=allowed,
        written_by=f"adapterhub {__version__}",
    )
    atomic_write(folder / CONFIG_FILE, encode_config(config))
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, render_card(manifest, name=name).encode())
    if state:
        # Rows of one tensor become several; a file holds none that share memory.
        apart = {key: tensor.clone().contiguous() for key, tensor in state.items()}
        atomic_write(folder / WEIGHTS_FILE, save(apart, metadata={"format": "pt"}))
    for text in _TEXT_FILES:
        if (source.folder.path / text).is_file():
            shutil.copyfile(source.folder.path / text, folder / text)
