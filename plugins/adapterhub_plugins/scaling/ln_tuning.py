"""Norm tuning (arXiv 2312.11420): trains the weights, and biases, of the norms and nothing else.

Works on the base's parameters, so it has never seen a quantized layer; stored as PEFT stores it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from typing import Any

from adapterhub.domain import options as read
from adapterhub.domain.attached import SiteAdapter, check_state, taking_part
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.domain.patch import Patch, Weights
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Handle
from adapterhub.domain.stored_modules import check_parts, stored_modules
from adapterhub.errors import CapabilityError
from adapterhub_plugins.scaling import LN_OPTIONS
from adapterhub_plugins.scaling.stored import (
    check_config,
    check_stored,
    chosen,
    family_of,
    head,
    in_layers,
)

_PART = "ln_tuning_layers"

# Those on the way from block to block; norms inside the attention (qwen3, gemma3) stay as they are.
_USUAL = (("input_layernorm", "post_attention_layernorm"), "norm")
_AROUND = (
    (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "norm",
)
_NORMS: dict[str, tuple[tuple[str, ...], str]] = {
    "gpt2": (("ln_1", "ln_2"), "ln_f"),
    "gemma2": _AROUND,
    "gemma3_text": _AROUND,
}


class LnTuning:
    """`adapterhub.domain.protocols.AdapterMethod`. Option: `layers`; the last norm, which belongs
    to no block, is tuned where that is left out."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        read.refuse_unknown("ln_tuning", options, LN_OPTIONS)
        layers = read.layer_numbers(options)
        family_of(base)
        inside, last = _NORMS.get(base.family, _USUAL)
        targets = [*inside, last] if layers is None else in_layers(inside, layers)
        return {**head(base, "LN_TUNING"), "target_modules": targets}

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedLnTuning:
        """Starts at the base's own values, so that `seed` changes nothing."""
        import torch
        from torch import nn

        check_config("ln_tuning", config)
        own = _norm_parameters(base, chosen(config, base.sites("norm"), what="norm"))
        if state is not None:
            check_state(state, {_stored(name): tuple(p.shape) for name, p in own.items()})
        tuned = {}
        for name, parameter in own.items():
            start = parameter.detach() if state is None else state[_stored(name)]
            start = start.to(parameter.device, torch.float32, copy=True)
            tuned[name] = nn.Parameter(start, requires_grad=False)
        return AttachedLnTuning(base, slot, config, tuned=tuned)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        if base is None:
            raise CapabilityError(
                "what ln_tuning changes is a difference to its base's norms",
                hint="name the base, or run the adapter attached",
            )
        own = _norm_parameters(base, chosen(config, base.sites("norm"), what="norm"))
        check_state(state, {_stored(name): tuple(p.shape) for name, p in own.items()})
        for name, parameter in sorted(own.items()):
            module, _, leaf = name.rpartition(".")
            tuned = state[_stored(name)].to(parameter.device)
            yield module, Weights(difference=_difference(tuned, parameter), parameter=leaf)

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        """All of a family's norms have a bias, or none has."""
        check_config("ln_tuning", config)
        parts = [f"{_PART}.{leaf}" for leaf in ("weight", "bias")]
        modules = stored_modules("an ln_tuning adapter", tensors, parts, prefix=PEFT_PREFIX)
        check_parts(modules, parts if family == "gpt2" else parts[:1])
        check_stored(config, modules, family=family)
        shapes: dict[str, tuple[int, ...]] = {}
        for name, found in modules.items():
            width = prod(found[parts[0]].shape)
            shapes |= {f"{PEFT_PREFIX}{name}.{part}": (width,) for part in found}
        check_state(tensors, shapes)


class AttachedLnTuning(SiteAdapter):
    """Trains the tuned values, which are what is stored; what takes part is their difference."""

    method = "ln_tuning"
    per_module = True

    def __init__(
        self, base: LoadedBase, slot: str, config: Mapping[str, Any], *, tuned: dict[str, Any]
    ) -> None:
        super().__init__(base, slot, config)
        self._tuned = tuned

    def parameters(self) -> Mapping[str, Any]:
        return {_stored(name): tensor for name, tensor in self._tuned.items()}

    def changes(self, weight: Any) -> Iterator[Handle]:
        own = self.base.parameters()
        named = ((name.rpartition(".")[0], name) for name in self._tuned)
        for name, norm_weight in taking_part(weight, named):
            change = partial(_weighted, self._tuned[name], own[name], norm_weight)
            yield self.base.add_to_parameter(name, change)


def _weighted(tuned: Any, own: Any, weight: float) -> Any:
    return weight * _difference(tuned, own)


def _difference(tuned: Any, own: Any) -> Any:
    """Of float32 and whatever the base keeps: in the wider of the two."""
    import torch

    wide = torch.promote_types(own.dtype, torch.float32)
    return tuned.to(wide) - own.detach().to(wide)


def _norm_parameters(base: LoadedBase, norms: list[str]) -> dict[str, Any]:
    """Name -> the base's parameter: the weight of each norm and, where it has one, the bias."""
    own = base.parameters()
    wanted = (f"{norm}.{leaf}" for norm in norms for leaf in ("weight", "bias"))
    return {name: own[name] for name in wanted if name in own}


def _stored(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{PEFT_PREFIX}{module}.{_PART}.{leaf}"
