"""LoRA (arXiv 2106.09685) through peft: attach by slot, describe as `Affine` patches.

peft wraps the linear layers; which slots take part and how strongly is decided here, so that
several adapters answer together without peft's own combination arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapterhub.domain.attached import check_state
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.domain.patch import Patch
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import AdapterhubError, CapabilityError, UsageError
from adapterhub_plugins.peft.config import check_reach, new_config, to_peft, widened
from adapterhub_plugins.peft.describe import OLD_MAGNITUDE, lora_patches, site_at
from adapterhub_plugins.peft.layers import inject, layers_of, remove, take_part
from adapterhub_plugins.peft.starts import orthogonal, principal
from adapterhub_plugins.peft.variants import Dora, Pissa, row_norms

_PARTS = {
    "lora_A": ".lora_A.weight",
    "lora_B": ".lora_B.weight",
    "lora_embedding_A": ".lora_embedding_A",
    "lora_embedding_B": ".lora_embedding_B",
    "lora_magnitude_vector": ".lora_magnitude_vector",
}
# What peft calls the layer round which it put its own.
_OWN = ".base_layer.weight"
# Starts that a state overwrites, so that peft need not compute them; on a quantized base it cannot.
_OVERWRITTEN = ("orthogonal", "gaussian", "eva")


class Lora:
    """`adapterhub.domain.protocols.AdapterMethod`."""

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
    ) -> AttachedLora:
        if slot in getattr(base.model, "peft_config", {}):
            raise UsageError(f"the slot {slot!r} is taken", hint="detach it first")
        start = config.get("init_lora_weights", True)
        fresh = state is None
        ours = start in (("orthogonal", "pissa") if fresh else _OVERWRITTEN)
        plain = {**config, "init_lora_weights": True} if ours else dict(config)
        inject(base.model, slot, to_peft(plain), seed=seed)
        try:
            if fresh and start == "pissa":
                attached: AttachedLora = AttachedPissa(base, slot, plain)
            else:
                attached = AttachedLora(base, slot, plain)
            if state is not None:
                attached.fill(state)
            else:
                attached.start(start, seed=seed)
        except AdapterhubError:
            remove(base.model, slot)
            raise
        attached.deactivate()
        return attached

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        return lora_patches(config, state, base)


class AttachedLora:
    """One LoRA in one slot of a base."""

    def __init__(self, base: LoadedBase, slot: str, config: Mapping[str, Any]) -> None:
        import torch

        self.slot = slot
        self.config = config
        self._base = base
        self._layers = dict(layers_of(base.model, slot))
        self._scaling = {name: layer.scaling[slot] for name, layer in self._layers.items()}
        self._dora = bool(config.get("use_dora"))
        for tensor in self._tensors().values():
            # Small updates vanish in bfloat16, so adapters are float32 whatever the base is.
            tensor.data = tensor.data.to(torch.float32)
            tensor.requires_grad_(requires_grad=False)
        if self._dora:
            for name, layer in self._layers.items():
                layer.lora_variant[slot] = Dora(site_at(base, name), base)

    def parameters(self) -> Mapping[str, Any]:
        """Stored name -> parameter, as PEFT names them: base_model.model.<module>.lora_A.weight."""
        return self._tensors()

    def state(self) -> dict[str, Any]:
        return {name: _stored(tensor) for name, tensor in self.parameters().items()}

    def start(self, start: str | bool, *, seed: int) -> None:
        """Where a fresh adapter starts, beyond what peft has done."""
        import torch

        check_reach(self.config, self._layers)
        make = torch.Generator().manual_seed(seed)
        for name, layer in self._layers.items():
            A, B = (part[self.slot].weight for part in (layer.lora_A, layer.lora_B))
            if start == "orthogonal":
                shape = (B.shape[0], A.shape[1])
                for factor, value in zip((A, B), orthogonal(shape, rank=len(A), make=make),
                                         strict=True):  # fmt: skip
                    factor.data.copy_(value)
            if self._dora:
                # peft took it in the base's dtype, in which it would be no identity.
                weight = site_at(self._base, name).weight()
                magnitude = layer.lora_magnitude_vector[self.slot].weight
                magnitude.data.copy_(row_norms(weight, A, B, self._scaling[name]))

    def fill(self, state: Mapping[str, Any]) -> None:
        """Copy stored tensors in. Raises MismatchError unless names and shapes agree both ways."""
        import torch

        stored = {
            OLD_MAGNITUDE.sub(r"\1", name): tensor
            for name, tensor in state.items()
            if not self._is_the_bases(name, tensor)
        }
        parameters = self._tensors()
        check_state(stored, {name: tuple(tensor.shape) for name, tensor in parameters.items()})
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(stored[name])

    def _is_the_bases(self, name: str, tensor: Any) -> bool:
        """Whether it is what the base has there itself: peft stores a whole embedding beside the
        factors that adapt it."""
        import torch

        module = name.removesuffix(_OWN).removeprefix(PEFT_PREFIX)
        if not name.endswith(_OWN) or module not in self._layers:
            return False
        weight = self._layers[module].get_base_layer().weight
        same = weight.to(device="cpu", dtype=tensor.dtype)
        return same.shape == tensor.shape and torch.equal(same, tensor.cpu())

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        if self._dora:
            _check_dora(weight)
        factor = self._rows(weight) if isinstance(weight, Sequence) else weight
        for name, layer in self._layers.items():
            own = factor[name] if isinstance(factor, Mapping) else factor
            layer.scaling[self.slot] = self._scaling[name] * own
            left_out = isinstance(factor, Mapping) and own == 0
            take_part(layer, [*self._others(layer), *([] if left_out else [self.slot])])

    def deactivate(self) -> None:
        for name, layer in self._layers.items():
            layer.scaling[self.slot] = self._scaling[name]
            take_part(layer, self._others(layer))

    def detach(self) -> None:
        remove(self._base.model, self.slot)
        self._layers = {}

    def _tensors(self) -> dict[str, Any]:
        found = {}
        for name, layer in self._layers.items():
            for part, suffix in _PARTS.items():
                holder = getattr(layer, part, None)
                if holder is not None and self.slot in holder:
                    entry = holder[self.slot]
                    found[f"{PEFT_PREFIX}{name}{suffix}"] = getattr(entry, "weight", entry)
        return found

    def _others(self, layer: Any) -> list[str]:
        return [slot for slot in layer.active_adapters if slot != self.slot]

    def _rows(self, weights: Sequence[float]) -> Any:
        """Scalings are multiplied with (rows, length, out)."""
        tensor = next(iter(self._tensors().values())).detach()
        return tensor.new_tensor(list(weights)).reshape(-1, 1, 1)


class AttachedPissa(AttachedLora):
    """A fresh PiSSA: what is trained starts at the principal part of the base's weights, and what
    is stored is how far it has come from there, as a plain LoRA of twice the rank."""

    def __init__(self, base: LoadedBase, slot: str, config: Mapping[str, Any]) -> None:
        super().__init__(base, slot, config)
        self.config = widened(config)
        self._variants: dict[str, Pissa] = {}

    def parameters(self) -> Mapping[str, Any]:
        """Under names of their own, since they are not stored as they are."""
        return {
            f"{PEFT_PREFIX}{name}.pissa{_PARTS[part]}": getattr(layer, part)[self.slot].weight
            for name, layer in self._layers.items()
            for part in ("lora_A", "lora_B")
        }

    def state(self) -> dict[str, Any]:
        stored = {}
        for name, layer in self._layers.items():
            trained = (layer.lora_A[self.slot].weight, layer.lora_B[self.slot].weight)
            factors = self._variants[name].factors(*trained)
            for part, tensor in zip(("lora_A", "lora_B"), factors, strict=True):
                stored[f"{PEFT_PREFIX}{name}{_PARTS[part]}"] = _stored(tensor)
        return stored

    def start(self, start: str | bool, *, seed: int) -> None:
        check_reach(self.config, self._layers)
        for name, layer in self._layers.items():
            A, B = (part[self.slot].weight for part in (layer.lora_A, layer.lora_B))
            weight = site_at(self._base, name).weight()
            A0, B0 = principal(weight, rank=len(A), scaling=self._scaling[name])
            A.data.copy_(A0)
            B.data.copy_(B0)
            self._variants[name] = layer.lora_variant[self.slot] = Pissa(A0, B0)


def _check_dora(weight: float | Sequence[float] | Mapping[str, float]) -> None:
    """A module takes part or not; between the two is no scale of one difference."""
    if isinstance(weight, Mapping):
        good = all(own in (0, 1) for own in weight.values())
    else:
        good = not isinstance(weight, Sequence) and weight == 1
    if not good:
        raise CapabilityError(
            "a DoRA adapter rescales the base's rows, so no weight but 1 means anything to it, nor "
            "to a module of it but 1 and 0",
            hint="use it with weight 1, or train one without dora",
        )


def _stored(tensor: Any) -> Any:
    return tensor.detach().cpu().contiguous().clone()
