"""The files of a merged adapter: weights, config, manifest with its parents, and card.

Writes into the folder it is given; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub import __version__
from adapterhub.compose.members import Member
from adapterhub.compose.peft_config import lora_config, tensor_names
from adapterhub.compose.plan import Arrangement, Plan
from adapterhub.domain.manifest import (
    CARD_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    Parent,
)
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


def write_merged(
    folder: Path,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    *,
    members: Sequence[Member],
    plan: Plan,
    name: str,
) -> None:
    """`pairs` are A (rank, in) and B (out, rank) by module, with scaling 1."""
    ranks = {module: len(A) for module, (A, _) in pairs.items()}
    configs = [member.folder.config or {} for member in members]
    config = lora_config(ranks, base=plan.base, configs=configs)
    manifest = merged_manifest(members, plan)
    atomic_write(folder / CONFIG_FILE, encode_config(config))
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, render_card(manifest, name=name).encode())
    atomic_write(folder / WEIGHTS_FILE, _encode_weights(pairs))


def merged_manifest(members: Sequence[Member], plan: Plan) -> Manifest:
    return Manifest(
        method="lora",
        config_version=1,
        base=plan.base,
        parents=tuple(
            Parent(ref=member.ref, weight=member.weight, sha256=member.sha256) for member in members
        ),
        strategy=plan.strategy.name,
        allowed=remembered(members, plan),
        written_by=f"adapterhub {__version__}",
    )


def remembered(members: Sequence[Member], plan: Arrangement) -> tuple[str, ...]:
    """Every check that was switched off on the way here: for the plan, or for a member before."""
    before = {code for member in members for code in member.folder.manifest.allowed}
    return tuple(sorted({*plan.allowed, *before}))


def _encode_weights(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> bytes:
    from safetensors.torch import save

    tensors = {
        name: tensor
        for module, pair in pairs.items()
        for name, tensor in zip(tensor_names(module), pair, strict=True)
    }
    return save(tensors, metadata={"format": "pt"})
