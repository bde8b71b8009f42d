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
    Manifest,
    Parent,
)
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.safetensors_writer import SafetensorsWriter
from adapterhub.hub.files import atomic_write, disk

if TYPE_CHECKING:
    from torch import Tensor


class MergedWeights:
    """The weights file under way: each module's factors are written when they come, and forgotten.

    Raises StorageError where the disk refuses.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.ranks: dict[str, int] = {}
        self._path = path
        most: dict[str, tuple[str, tuple[int, int]]] = {}
        for step in plan.steps:
            rank = min(step.out_features, step.in_features)
            shapes = (rank, step.in_features), (step.out_features, rank)
            for name, shape in zip(tensor_names(step.module), shapes, strict=True):
                most[name] = plan.dtype, shape
        with disk("write", path):
            self._file = path.open("xb")
            self._writer = SafetensorsWriter(self._file, most)

    def add(self, module: str, A: Tensor, B: Tensor) -> None:
        """A (rank, in) and B (out, rank), with scaling 1."""
        with disk("write", self._path):
            for name, tensor in zip(tensor_names(module), (A, B), strict=True):
                self._writer.add(name, tensor.shape, _bytes(tensor))
        self.ranks[module] = len(A)

    def finish(self) -> None:
        with disk("write", self._path):
            self._writer.finish()
            self._file.close()

    def close(self) -> None:
        self._file.close()


def write_descriptions(
    folder: Path, ranks: Mapping[str, int], *, members: Sequence[Member], plan: Plan, name: str
) -> None:
    """Config, manifest and card, beside the weights."""
    configs = [member.folder.config or {} for member in members]
    config = lora_config(ranks, base=plan.base, configs=configs)
    manifest = merged_manifest(members, plan)
    atomic_write(folder / CONFIG_FILE, encode_config(config))
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, render_card(manifest, name=name).encode())


def merged_manifest(members: Sequence[Member], plan: Plan) -> Manifest:
    limited = {"rank": plan.limit} if plan.limit or plan.options else {}
    return Manifest(
        method="lora",
        config_version=1,
        base=plan.base,
        parents=parents_of(members),
        strategy=plan.strategy.name,
        recipe={**limited, **plan.options, **plan.searched} or None,
        allowed=remembered(members, plan),
        written_by=f"adapterhub {__version__}",
    )


def parents_of(members: Sequence[Member]) -> tuple[Parent, ...]:
    """As a manifest remembers them."""
    return tuple(
        Parent(
            ref=member.ref,
            weight=member.weight,
            sha256=member.sha256,
            scales=dict(member.scales) or None,
        )
        for member in members
    )


def remembered(members: Sequence[Member], plan: Arrangement) -> tuple[str, ...]:
    """Every check that was switched off on the way here: for the plan, or for a member before."""
    before = {code for member in members for code in member.folder.manifest.allowed}
    return tuple(sorted({*plan.allowed, *before}))


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data.cast("B")
