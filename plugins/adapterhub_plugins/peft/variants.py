"""What a layer of peft computes for DoRA and PiSSA in the place of s B A x.

peft asks such an object in each forward pass, once a slot. It knows factors and one site; which
slots take part, and how tensors are stored, is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Site

if TYPE_CHECKING:
    from torch import Tensor


def row_norms(weight: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """||W + s B A|| of each row (out,), in the dtype of the factors. A constant for the gradient,
    as section 4.3 of the DoRA paper proposes and peft does."""
    import torch

    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        norms: Tensor = torch.linalg.norm(weight.to(A.dtype) + scaling * (B @ A), dim=1)
        return norms


@dataclass(frozen=True, eq=False)
class Dora:
    """DoRA (arXiv 2402.09353): y + (g - 1) W x + g s B A x with g = m / ||W + s B A|| by row.

    peft's own reads W x off what the layers before it made of y, so that two adapters on one
    layer would depend on their order; here W x is the base's.
    """

    site: Site
    base: LoadedBase

    def forward(
        self, module: Any, *, active_adapter: str, x: Tensor, result: Tensor, **_: Any
    ) -> Tensor:
        from torch.nn.functional import linear

        A, B = (part[active_adapter].weight for part in (module.lora_A, module.lora_B))
        scaling = module.scaling[active_adapter]
        magnitude = module.lora_magnitude_vector[active_adapter].weight
        gain = magnitude / row_norms(self.site.weight(), A, B, scaling)
        dropped = module.lora_dropout[active_adapter](x)
        own = self._own(module, active_adapter, dropped, result, same_input=dropped is x)
        low = linear(linear(dropped, A), B) * scaling
        total: Tensor = (result + (gain - 1) * own + gain * low).to(result.dtype)
        return total

    def _own(
        self, module: Any, slot: str, x: Tensor, result: Tensor, *, same_input: bool
    ) -> Tensor:
        """W x, without the bias and without what others add to this layer."""
        layer = module.get_base_layer()
        if same_input and (self.base.sequential or self._untouched(module, slot)):
            own = result
        else:
            # Around the hooks by which other methods change what the layer reads or answers.
            weight = layer.weight
            # A quantized layer, whose weight is no float, casts what it reads by itself.
            own = layer.forward(x.to(weight.dtype) if weight.is_floating_point() else x)
        return own if layer.bias is None else own - layer.bias

    def _untouched(self, module: Any, slot: str) -> bool:
        layer = module.get_base_layer()
        hooked = bool(layer._forward_hooks or layer._forward_pre_hooks)
        first = next(name for name in module.active_adapters if name in module.lora_A)
        return first == slot and not hooked


@dataclass(frozen=True, eq=False)
class Pissa:
    """PiSSA against the untouched base: s (B A - B0 A0) x, with A0, B0 where training started.

    Written as B (A - A0) + (B - B0) A0, a pair of rank 2r: a fresh one is exactly nothing, and a
    trained one does not take a small difference between two large products.
    """

    A0: Tensor
    B0: Tensor

    def factors(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """A (2r, in) and B (out, 2r), as they are stored."""
        import torch

        A0, B0 = self.A0.to(A), self.B0.to(B)
        return torch.cat([A - A0, A0]), torch.cat([B, B - B0], dim=1)

    def forward(
        self, module: Any, *, active_adapter: str, x: Tensor, result: Tensor, **_: Any
    ) -> Tensor:
        from torch.nn.functional import linear

        A, B = self.factors(
            module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        )
        dropped = module.lora_dropout[active_adapter](x)
        change = linear(linear(dropped, A), B) * module.scaling[active_adapter]
        total: Tensor = (result + change).to(result.dtype)
        return total
