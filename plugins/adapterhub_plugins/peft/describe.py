"""What a stored PEFT LoRA does to each module, as patches.

Reads a config and named tensors; DoRA alone asks a base for its weights. Refused is whatever else
peft (0.21) would compute from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.domain.patch import Affine
from adapterhub.domain.patterns import value_for
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Site
from adapterhub.errors import CapabilityError, FormatError, MismatchError

if TYPE_CHECKING:
    from torch import Tensor

# peft stores a DoRA magnitude under the first, and reads it under this too.
OLD_MAGNITUDE = re.compile(r"(\.lora_magnitude_vector)\.weight$")
_MAGNITUDE = "lora_magnitude_vector"
_PARTS = ("lora_A.weight", "lora_B.weight", "lora_B.bias")
_DORA = "DoRA, which rescales the base's own weights"

# Config keys that, when set, make the effect something else than scaling * B A.
_VARIANTS = {
    "use_qalora": "QA-LoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "Arrow routing",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on bare parameters",
    "modules_to_save": "fully trained modules",
    "trainable_token_indices": "trained token embeddings",
}
# These subtract something from the base's weights first, so B A alone is not the difference.
_BASE_CHANGING_STARTS = ("pissa", "corda", "olora", "loftq", "lora_ga")


def lora_patches(
    config: Mapping[str, Any], state: Mapping[str, Tensor], base: LoadedBase | None = None
) -> Iterator[tuple[str, Affine]]:
    """(module name, patch) in the order of the names; each tensor is read when its turn comes.

    Raises CapabilityError for a variant that is not a sum of low-rank deltas, FormatError for a
    tensor that is no part of a LoRA, MismatchError when a shape contradicts the config.
    """
    _refuse_variants(config, base)
    dora = bool(config.get("use_dora"))
    for module, parts in sorted(_group(state, dora=dora).items()):
        patch = _patch(module, parts, config, state)
        if base is not None and dora:
            patch = _rescaled(module, patch, state[_magnitude(module, parts)], base)
        yield module, patch


def rank_of(module: str, config: Mapping[str, Any]) -> int:
    """The rank peft gives this module."""
    return int(value_for(module, config.get("rank_pattern"), config.get("r", 8)))


def scaling_of(module: str, config: Mapping[str, Any]) -> float:
    """alpha/r, or alpha/sqrt(r) for rank-stabilised LoRA (arXiv 2312.03732)."""
    rank = rank_of(module, config)
    alpha = float(value_for(module, config.get("alpha_pattern"), config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def site_at(base: LoadedBase, module: str) -> Site:
    """The linear layer that a DoRA or a PiSSA computes from. Raises CapabilityError elsewhere."""
    site = base.sites("linear").get(module)
    if site is None:
        raise CapabilityError(
            f"{module} is no linear layer inside the base's blocks, so neither dora nor pissa "
            "is for it",
            hint="leave it out of the targets",
        )
    return site


def _rescaled(module: str, patch: Affine, magnitude: Tensor, base: LoadedBase) -> Affine:
    """DoRA: y = m / ||W + s B A|| (W + s B A) x, by row and in float64."""
    import torch

    weight = site_at(base, module).weight().double()
    A, B = patch.A.to(weight), patch.B.to(weight)
    if weight.shape != (B.shape[0], A.shape[1]) or magnitude.shape != (len(B),):
        raise MismatchError(
            f"{module} is {tuple(weight.shape)} in this base, but the adapter's is "
            f"{(B.shape[0], A.shape[1])} with {tuple(magnitude.shape)} magnitudes",
            hint="the adapter was made for another base; `adapterhub show` names it",
        )
    scale = magnitude.to(weight) / torch.linalg.norm(weight + patch.scaling * (B @ A), dim=1)
    return replace(patch, row_scale=scale)


def _magnitude(module: str, parts: Mapping[str, str]) -> str:
    if _MAGNITUDE not in parts:
        raise FormatError(
            f"{module} has no {_MAGNITUDE}", hint="the file is incomplete; save or pull it again"
        )
    return parts[_MAGNITUDE]


def _refuse_variants(config: Mapping[str, Any], base: LoadedBase | None) -> None:
    found = next((what for key, what in _VARIANTS.items() if config.get(key)), None)
    if config.get("use_dora") and base is None:
        found = _DORA
    if found:
        raise CapabilityError(
            f"this adapter uses {found}: its effect is not a low-rank delta",
            hint="run it by itself; it cannot be stacked or merged",
        )
    refuse_base_changing_start(config)


def refuse_base_changing_start(config: Mapping[str, Any]) -> None:
    """Raises CapabilityError for PiSSA and its kin: peft would edit the base when attaching."""
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_BASE_CHANGING_STARTS):
        raise CapabilityError(
            f"this adapter starts from {start!r}, which changes the base's own weights",
            hint="convert it with peft: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)",
        )


def _group(state: Mapping[str, Tensor], *, dora: bool) -> dict[str, dict[str, str]]:
    """Module name -> part -> tensor name, from the names alone."""
    known = (*_PARTS, _MAGNITUDE) if dora else _PARTS
    modules: dict[str, dict[str, str]] = {}
    for name in state:
        plain = OLD_MAGNITUDE.sub(r"\1", name)
        part = next((part for part in known if plain.endswith(f".{part}")), None)
        if part is None or not name.startswith(PEFT_PREFIX):
            raise _stranger(name)
        modules.setdefault(plain[len(PEFT_PREFIX) : -len(part) - 1], {})[part] = name
    return modules


def _stranger(name: str) -> FormatError | CapabilityError:
    if "lora_magnitude_vector" in name:
        what = "a DoRA magnitude, which rescales the base's own weights"
    elif ".lora_embedding_" in name:
        what = "a LoRA on an embedding"
    elif name.endswith(".bias"):
        what = "a trained bias of the base"
    elif ".lora_" not in name:
        what = "a fully trained weight"
    else:
        return FormatError(
            f"the tensor {name!r} is no part of a LoRA",
            hint=f"peft stores {PEFT_PREFIX}<module>.lora_A.weight and .lora_B.weight; save it "
            "again",
        )
    return CapabilityError(
        f"{name!r} is {what}: its effect is not a low-rank delta",
        hint="run the adapter by itself; it cannot be stacked or merged",
    )


def _patch(
    module: str, parts: Mapping[str, str], config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Affine:
    missing = [part for part in _PARTS[:2] if part not in parts]
    if missing:
        raise FormatError(
            f"{module} has no {missing[0]}", hint="the file is incomplete; save or pull it again"
        )
    A, B = (state[parts[part]] for part in _PARTS[:2])
    _check_shapes(module, A, B, rank=rank_of(module, config))
    scaling = scaling_of(module, config)
    # peft scales the bias of B together with B.
    bias = scaling * state[parts["lora_B.bias"]] if "lora_B.bias" in parts else None
    return Affine(A=A, B=B, scaling=scaling, bias=bias)


def _check_shapes(module: str, A: Tensor, B: Tensor, *, rank: int) -> None:
    if A.ndim != 2 or B.ndim != 2:
        # A grouped convolution stores the same shapes as a plain one and means something else.
        raise CapabilityError(
            f"{module} is a convolution, and only linear layers can be described",
            hint="run the adapter by itself; it cannot be stacked or merged",
        )
    if A.shape[0] != rank or B.shape[1] != rank:
        raise MismatchError(
            f"{module} should have rank {rank}, but lora_A is {tuple(A.shape)} "
            f"and lora_B {tuple(B.shape)}",
            hint="adapter_config.json and the weights do not belong together; pull them again",
        )
