"""Bottleneck adapters: y + up(f(down(h))) at sublayers, h what they answer or what they read.

The sublayer's own output is changed, before any norm that a family such as gemma puts behind it.
Works on sites: it has never seen a weight of the base, quantized or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapterhub.domain.attached import SiteAdapter, check_state, taking_part
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.patch import Block, Patch
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Handle, Site
from adapterhub.domain.stored_modules import check_blocks, check_parts, stored_modules
from adapterhub.errors import MismatchError, UsageError
from adapterhub_plugins.bottleneck.config import Design, design_of, new_config

_PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")


class Bottleneck:
    """`adapterhub.domain.protocols.AdapterMethod`. Options: `placement` (pfeiffer, houlsby or
    parallel), `reduction` (hidden size over the bottleneck's), `nonlinearity`, `scaling` (parallel
    only), `dropout` and `layers`."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        return new_config(base, options)

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedBottleneck:
        import torch

        design = design_of(config)
        sites = _sites(base, design)
        if state is not None:
            check_state(state, _shapes(sites, design))
        generator = torch.Generator().manual_seed(seed)
        modules = [
            Module(
                site=site,
                design=design,
                parts=_fresh(site, design, generator, base.device)
                if state is None
                else _loaded(site, state, base.device),
            )
            for site in sites
        ]
        return AttachedBottleneck(base, slot, config, modules=modules)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        design = design_of(config)
        sites = stored_modules("a bottleneck", state, _PARTS)
        check_parts(sites, _PARTS)
        for site, parts in sites.items():
            yield site, Block(module=_sequential(parts, design), reads=design.reads)

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        design = design_of(config)
        sites = stored_modules("a bottleneck", tensors, _PARTS)
        check_parts(sites, _PARTS)
        leaves = {site.rpartition(".")[2] for site in sites}
        if len(leaves) != len(design.kinds):
            raise MismatchError(
                f"the file has modules at {' and '.join(sorted(leaves))}, but a {design.placement} "
                f"bottleneck is at the {' and the '.join(design.kinds)} of a block",
                hint="the file was cut or its config edited; pull it again or ask its author",
            )
        check_blocks(sites, family=family, layers=design.layers)
        shapes: dict[str, tuple[int, ...]] = {}
        for site, parts in sites.items():
            # Of the two sizes only the hidden one is free.
            shapes |= _shapes_at(site, math.prod(parts["up.bias"].shape), design)
        check_state(tensors, shapes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Module:
    """One bottleneck at one sublayer; `parts` as named in `_PARTS`, float32."""

    site: Site
    design: Design
    parts: Mapping[str, Any]

    def add(self, weight: Any) -> Handle:
        def of_output(x: Any, y: Any) -> Any:
            return weight * self.answer(x if self.design.reads == "input" else y)

        return self.site.add_to_output(of_output)

    def answer(self, h: Any) -> Any:
        """scaling * up(f(down(h))), computed in float32 or wider."""
        import torch
        from torch.nn import functional

        wide = torch.promote_types(h.dtype, torch.float32)
        down, down_bias, up, up_bias = (self.parts[part].to(wide) for part in _PARTS)
        inner = functional.linear(h.to(wide), down, down_bias)
        inner = getattr(functional, self.design.nonlinearity)(inner)
        # The base's own word for whether it is being trained: this module is no part of it.
        inner = functional.dropout(inner, self.design.dropout, training=self.site.module.training)
        return self.design.scaling * functional.linear(inner, up, up_bias)


class AttachedBottleneck(SiteAdapter):
    method = "bottleneck"
    per_row = True
    per_module = True

    def __init__(
        self, base: LoadedBase, slot: str, config: Mapping[str, Any], *, modules: list[Module]
    ) -> None:
        super().__init__(base, slot, config)
        self._modules = modules

    def parameters(self) -> Mapping[str, Any]:
        return {
            f"{module.site.name}.{part}": tensor
            for module in self._modules
            for part, tensor in module.parts.items()
        }

    def changes(self, weight: Any) -> Iterator[Handle]:
        named = ((module.site.name, module) for module in self._modules)
        return (module.add(own) for module, own in taking_part(weight, named))


def _sites(base: LoadedBase, design: Design) -> list[Site]:
    """The sublayers in the model's order. Raises UsageError for layers the base does not have."""
    found = []
    for kind in design.kinds:
        sites = list(base.sites(kind).values())
        if not sites:
            raise UsageError(
                f"where the blocks of the family {base.spec.family!r} have their sublayers is not "
                "known",
                hint="choose another method: adapterhub methods",
            )
        layers = range(len(sites)) if design.layers is None else design.layers
        if max(layers) >= len(sites):
            raise UsageError(
                f"the base has no block {max(layers)}", hint=f"its last one is {len(sites) - 1}"
            )
        found += [(layer, sites[layer]) for layer in layers]
    return [site for _, site in sorted(found, key=lambda pair: pair[0])]


def _shapes(sites: list[Site], design: Design) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for site in sites:
        shapes |= _shapes_at(site.name, site.shape[0], design)
    return shapes


def _shapes_at(site: str, hidden: int, design: Design) -> dict[str, tuple[int, ...]]:
    width = design.width(hidden)
    sizes = ((width, hidden), (width,), (hidden, width), (hidden,))
    return {f"{site}.{part}": size for part, size in zip(_PARTS, sizes, strict=True)}


def _fresh(site: Site, design: Design, generator: Any, device: str) -> dict[str, Any]:
    """`up` starts at zero so that attaching changes nothing; `down` as a linear layer does."""
    import torch
    from torch import nn

    shapes = _shapes([site], design)
    parts = {part: torch.zeros(shapes[f"{site.name}.{part}"]) for part in _PARTS}
    nn.init.kaiming_uniform_(parts["down.weight"], a=math.sqrt(5), generator=generator)
    return {
        part: nn.Parameter(tensor.to(device), requires_grad=False) for part, tensor in parts.items()
    }


def _loaded(site: Site, state: Mapping[str, Any], device: str) -> dict[str, Any]:
    import torch
    from torch import nn

    return {
        part: nn.Parameter(
            state[f"{site.name}.{part}"].to(device, torch.float32, copy=True), requires_grad=False
        )
        for part in _PARTS
    }


def _sequential(parts: Mapping[str, Any], design: Design) -> Any:
    """The same function as torch's own layers, `scaling` folded into the last."""
    import torch
    from torch import nn

    kinds = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
    width, hidden = parts["down.weight"].shape
    down, up = nn.Linear(hidden, width), nn.Linear(width, hidden)
    with torch.no_grad():
        down.weight.copy_(parts["down.weight"])
        down.bias.copy_(parts["down.bias"])
        up.weight.copy_(design.scaling * parts["up.weight"])
        up.bias.copy_(design.scaling * parts["up.bias"])
    module = nn.Sequential(down, kinds[design.nonlinearity](), up)
    return module.to(parts["down.weight"].device).requires_grad_(False).eval()
