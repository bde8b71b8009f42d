"""Turn a fine-tuned model into a LoRA: the difference to its base, layer by layer, at a low rank.

Reads both models tensor by tensor and trains nothing. What a LoRA cannot hold is measured too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub import __version__
from adapterhub.compose.peft_config import lora_config, tensor_names
from adapterhub.domain.lineage import EXTRACTED_FROM
from adapterhub.domain.manifest import (
    CARD_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    BaseRecord,
    Manifest,
)
from adapterhub.domain.targets import family_targets
from adapterhub.errors import FormatError, NoEffectError, UsageError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.recipe_file import without_places
from adapterhub.hub.files import atomic_write
from adapterhub.hub.staging import check_free, staged_folder
from adapterhub.models.sources import FloatFolder, open_source
from adapterhub.models.tensors import Anatomy, Tensors
from adapterhub.train.low_rank import Factors, factorize
from adapterhub.train.pair import Say, opened_base, opened_pair

if TYPE_CHECKING:
    from torch import Tensor

MAX_RANK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A layer in the adapter: its rank, ||D|| / ||W|| (None for a W of zeros) and the error
    ||D - B A|| / ||D||."""

    module: str
    rank: int
    change: float | None
    error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A parameter that differs and is not in the adapter, and ||D|| / ||W|| of it."""

    parameter: str
    change: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """What was written. `error` is ||D - B A|| / ||D|| over all layers in the adapter; `unchanged`
    counts linear layers that do not differ."""

    folder: Path
    base: BaseRecord
    held: tuple[Held, ...]
    left_out: tuple[LeftOut, ...]
    unchanged: int
    error: float


def extract(
    base: str,
    tuned: str,
    out: Path,
    *,
    rank: int = 16,
    targets: str = "all-linear",
    overwrite: bool = False,
    device: str = "cpu",
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
    say: Say = lambda _: None,
) -> Extracted:
    """Write the LoRA of rank `rank` that is nearest to what `tuned` changed of `base`.

    `base` is a base's name here, or like `tuned` a folder, a GGUF file or a hub id. `on_tensor`
    hears how many of how many parameters were compared. Raises MismatchError for two models of
    different layers, NoEffectError where no layer differs.
    """
    if not 1 <= rank <= MAX_RANK:
        raise UsageError(f"rank {rank} is out of range", hint=f"use 1 to {MAX_RANK}")
    check_free(out, overwrite=overwrite)
    with (
        opened_base(base, say) as (folder, record),
        open_source(tuned, say=say) as other,
        opened_pair(folder, other.path) as (shape, before, after),
    ):
        work = _Comparison(shape, _chosen(shape, targets), rank, device)
        for done, name in enumerate(shape.parameters, start=1):
            work.compare(name, before, after)
            on_tensor(done, len(shape.parameters))
    if not work.factors:
        raise _nothing(work, base, tuned)
    with staged_folder(out, overwrite=overwrite) as stage:
        made = {EXTRACTED_FROM: _source_name(tuned, other), "rank": rank, "targets": targets}
        _write(stage, work.factors, record, shape, recipe=made, name=out.absolute().name)
    return Extracted(
        folder=out,
        base=record,
        held=tuple(work.held),
        left_out=tuple(work.left_out),
        unchanged=work.unchanged,
        error=_total(work.factors.values()),
    )


class _Comparison:
    """Goes through the parameters and keeps factors and figures."""

    def __init__(self, shape: Anatomy, chosen: frozenset[str], rank: int, device: str) -> None:
        self.factors: dict[str, Factors] = {}
        self.held: list[Held] = []
        self.left_out: list[LeftOut] = []
        self.unchanged = 0
        self._shape, self._chosen, self._rank, self._device = shape, chosen, rank, device

    def compare(self, name: str, before: Tensors, after: Tensors) -> None:
        import torch

        if name not in before.places and name not in after.places:
            return  # tied to another parameter, in both
        module = name.removesuffix(".weight")
        old = self._read(before, name)
        difference = self._read(after, name) - old
        if not torch.isfinite(difference).all():
            raise FormatError(
                f"{name} is not finite in one of the two models", hint="fetch both again"
            )
        if not difference.any():
            self.unchanged += module in self._shape.linear
            return
        change = _share(float(torch.linalg.norm(difference)), float(torch.linalg.norm(old)))
        if module not in self._chosen:
            self.left_out.append(LeftOut(parameter=name, change=change))
            return
        turned = difference.T if module in self._shape.transposed else difference
        found = factorize(turned, self._rank)
        self.factors[module] = found
        self.held.append(
            Held(
                module=module,
                rank=len(found.A),
                change=change,
                error=found.error / found.norm,
            )
        )

    def _read(self, tensors: Tensors, name: str) -> Tensor:
        import torch

        found: Tensor = tensors.read(name).to(self._device, torch.float64)
        return found


def _chosen(shape: Anatomy, targets: str) -> frozenset[str]:
    """The linear layers that may go into the adapter; all of them, whatever the family."""
    if targets == "all-linear":
        return frozenset(shape.linear)
    leaves = family_targets(shape.family, targets)
    chosen = {name for name in shape.linear for leaf in leaves if f".{name}".endswith(f".{leaf}")}
    if not chosen:
        raise UsageError(
            f"--targets {targets} names no linear layer of this model",
            hint=f"one of them is {next(iter(shape.linear))}",
        )
    return frozenset(chosen)


def _source_name(tuned: str, found: FloatFolder) -> str:
    """Without the place that it has on this machine; at a hub, with its commit."""
    at_hub = found.revision != "local" and not Path(tuned).expanduser().exists()
    return f"{found.id}@{found.revision}" if at_hub else str(without_places(tuned))


def _write(
    folder: Path,
    found: dict[str, Factors],
    record: BaseRecord,
    shape: Anatomy,
    *,
    recipe: dict[str, Any],
    name: str,
) -> None:
    from safetensors.torch import save

    like = {"task_type": "CAUSAL_LM", "fan_in_fan_out": bool(shape.transposed)}
    ranks = {module: len(factors.A) for module, factors in found.items()}
    tensors = {
        stored: tensor.cpu()
        for module, factors in found.items()
        for stored, tensor in zip(tensor_names(module), (factors.A, factors.B), strict=True)
    }
    manifest = Manifest(
        method="lora",
        config_version=1,
        base=record,
        recipe=recipe,
        written_by=f"adapterhub {__version__}",
    )
    config = lora_config(ranks, base=record, configs=[like])
    atomic_write(folder / CONFIG_FILE, encode_config(config))
    atomic_write(folder / MANIFEST_FILE, encode_manifest(manifest))
    atomic_write(folder / CARD_FILE, render_card(manifest, name=name).encode())
    atomic_write(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))


def _nothing(work: _Comparison, base: str, tuned: str) -> NoEffectError:
    if not work.left_out:
        return NoEffectError(
            f"{tuned} and {base} hold the same weights", hint="check that both names are right"
        )
    return NoEffectError(
        f"no layer that a LoRA may hold differs between {tuned} and {base}; what differs is "
        f"{work.left_out[0].parameter}"
        + (f" and {len(work.left_out) - 1} more" if len(work.left_out) > 1 else ""),
        hint="name other --targets, or store the whole difference: adapterhub train --method full",
    )


def _total(found: Iterable[Factors]) -> float:
    parts = [(factors.error**2, factors.norm**2) for factors in found]
    return math.sqrt(sum(error for error, _ in parts) / sum(norm for _, norm in parts))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
