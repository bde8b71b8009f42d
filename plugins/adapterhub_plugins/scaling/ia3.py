"""(IA)^3 (arXiv 2205.05638): keys, values and the feed-forward's inner activation, rescaled.

Works on sites, so it has never seen a quantized layer; stored as PEFT stores it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from adapterhub.domain import options as read
from adapterhub.domain.attached import SiteAdapter, check_state, taking_part
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.domain.patch import Affine, Patch
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Handle, Site
from adapterhub.domain.stored_modules import is_named, stored_modules
from adapterhub.domain.targets import FAMILIES, Family
from adapterhub.errors import CapabilityError, MismatchError
from adapterhub_plugins.scaling import IA3_OPTIONS
from adapterhub_plugins.scaling.stored import (
    check_config,
    check_stored,
    chosen,
    family_of,
    head,
    in_layers,
)

_SUFFIX = ".ia3_l"
_KEYS = ("fan_in_fan_out", "feedforward_modules", "init_ia3_weights")


class Ia3:
    """`adapterhub.domain.protocols.AdapterMethod`. Options: `feedforward` (default true: scale the
    inner activation too) and `layers`."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        read.refuse_unknown("ia3", options, IA3_OPTIONS)
        layers = read.layer_numbers(options)
        attention, inner = _paths(family_of(base))
        inner = inner if read.flag(options, "feedforward", default=True) else []
        return {
            **head(base, "IA3"),
            "target_modules": in_layers([*attention, *inner], layers),
            "feedforward_modules": in_layers(inner, layers),
            "fan_in_fan_out": base.family == "gpt2",
            "init_ia3_weights": True,
        }

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedIa3:
        """Starts at ones, so that `seed` changes nothing."""
        check_config("ia3", config, _KEYS)
        linear = base.sites("linear")
        names = chosen(config, linear, what="linear layer")
        inputs = {name: _scales_input(name, config) for name in names}
        if state is not None:
            check_state(
                state,
                {
                    _stored(name): (1, linear[name].shape[1])
                    if inputs[name]
                    else (linear[name].shape[0], 1)
                    for name in names
                },
            )
        scales = [
            _scale(base, linear[name], inputs[name], state and state[_stored(name)])
            for name in names
        ]
        return AttachedIa3(base, slot, config, scales=scales)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        """Where outputs are scaled, so is the layer's bias, which only a base can tell."""
        modules = stored_modules("an ia3 adapter", state, [_SUFFIX[1:]], prefix=PEFT_PREFIX)
        for name, parts in modules.items():
            values = parts[_SUFFIX[1:]].flatten()
            if _scales_input(name, config):
                yield name, Affine(column_scale=values)
            else:
                yield name, Affine(row_scale=values, bias=_bias(base, name, values))

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        check_config("ia3", config, _KEYS)
        modules = stored_modules("an ia3 adapter", tensors, [_SUFFIX[1:]], prefix=PEFT_PREFIX)
        check_stored(config, modules, family=family)
        shapes = {}
        for name in modules:
            width = prod(tensors[_stored(name)].shape)
            shapes[_stored(name)] = (1, width) if _scales_input(name, config) else (width, 1)
        check_state(tensors, shapes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """The scale of one layer: `trained` is all of it, or stands for `rows` of `whole`."""

    site: Site
    of_input: bool
    trained: Any
    rows: Any = None
    whole: Any = None

    def values(self) -> Any:
        """As stored: (out, 1), or (1, in) for a scale of the input."""
        if self.rows is None:
            return self.trained
        return self.whole.index_copy(0, self.rows, self.trained)

    def add(self, weight: Any) -> Handle:
        def of_input(x: Any) -> Any:
            return weight * (self.values().flatten() - 1) * x

        def of_output(x: Any, y: Any) -> Any:
            return weight * (self.values().flatten() - 1) * y

        if self.of_input:
            return self.site.add_to_input(of_input)
        return self.site.add_to_output(of_output)


class AttachedIa3(SiteAdapter):
    method = "ia3"
    per_row = True
    per_module = True

    def __init__(
        self, base: LoadedBase, slot: str, config: Mapping[str, Any], *, scales: list[Scale]
    ) -> None:
        super().__init__(base, slot, config)
        self._scales = scales

    def parameters(self) -> Mapping[str, Any]:
        """A fused layer's trained rows are not what is stored, hence another name."""
        found = {}
        for scale in self._scales:
            part = "" if scale.rows is None else ".keys_values"
            found[f"{_stored(scale.site.name)}{part}"] = scale.trained
        return found

    def state(self) -> dict[str, Any]:
        return {
            _stored(scale.site.name): scale.values().detach().cpu().contiguous().clone()
            for scale in self._scales
        }

    def changes(self, weight: Any) -> Iterator[Handle]:
        named = ((scale.site.name, scale) for scale in self._scales)
        return (scale.add(own) for scale, own in taking_part(weight, named))


def _paths(family: Family) -> tuple[list[str], list[str]]:
    """Where keys and values are made, and what reads the activation, by their paths in a block."""
    attention, mlp = family.sublayers
    parts = dict(family.fused)
    makers = [
        leaf for leaf in family.attention if set(parts.get(leaf, (leaf,))) & set(family.keys_values)
    ]
    inner = [leaf if "." in leaf else f"{mlp}.{leaf}" for leaf in family.feedforward]
    return [f"{attention}.{leaf}" for leaf in makers], inner


def _scale(base: LoadedBase, site: Site, of_input: bool, stored: Any) -> Scale:
    import torch
    from torch import nn

    shape = (1, site.shape[1]) if of_input else (site.shape[0], 1)
    whole = torch.ones(shape) if stored is None else stored.to(torch.float32)
    whole = whole.to(base.device)
    listed = None if of_input else _key_value_rows(base, site)
    if listed is None:
        trained = nn.Parameter(whole.clone(), requires_grad=False)
        return Scale(site=site, of_input=of_input, trained=trained)
    rows = torch.tensor(listed, device=base.device)
    trained = nn.Parameter(whole.index_select(0, rows), requires_grad=False)
    return Scale(site=site, of_input=of_input, trained=trained, rows=rows, whole=whole.clone())


def _key_value_rows(base: LoadedBase, site: Site) -> list[int] | None:
    """The rows of a fused layer that make keys and values, if it makes other things as well."""
    family = FAMILIES.get(base.spec.family)
    wanted = family.keys_values if family else ()
    spans = [span for part, span in site.sections.items() if part in wanted]
    rows = [row for first, end in spans for row in range(first, end)]
    return rows if 0 < len(rows) < site.shape[0] else None


def _scales_input(name: str, config: Mapping[str, Any]) -> bool:
    listed = config.get("feedforward_modules") or []
    if not isinstance(listed, list):
        raise CapabilityError(
            "this adapter's feedforward_modules is a pattern, and only names are read here",
            hint="ask its author for one with a list, or load it with plain peft",
        )
    return is_named(name, listed)


def _bias(base: LoadedBase | None, name: str, scale: Any) -> Any:
    """PEFT scales what a layer answers, its bias included; a patch leaves the bias alone."""
    if base is None:
        raise CapabilityError(
            f"how ia3 changes {name} depends on the bias that its base may have",
            hint="name the base, or run the adapter attached",
        )
    sites = base.sites("linear")
    if name not in sites:
        raise MismatchError(
            f"the base has no linear layer called {name!r}",
            hint="the adapter was made for another base; `adapterhub show` names it",
        )
    if scale.shape != sites[name].shape[:1]:
        raise MismatchError(
            f"{name} answers {sites[name].shape[0]} numbers in this base, the adapter scales "
            f"{len(scale)}",
            hint="the adapter was made for another base, or its config was edited",
        )
    bias = getattr(sites[name].module, "bias", None)
    return None if bias is None else (scale.to(bias.device) - 1) * bias.detach()


def _stored(name: str) -> str:
    return f"{PEFT_PREFIX}{name}{_SUFFIX}"
