"""LoRA (arXiv 2106.09685) through peft: attach by slot, describe as `Affine` patches.

peft wraps the linear layers; which slots take part and how strongly is decided here, so that
several adapters answer together without peft's own combination arithmetic.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.domain.patch import Patch
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub_plugins.peft.config import new_config, to_peft
from adapterhub_plugins.peft.describe import lora_patches

_PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


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
        _inject(base.model, slot, to_peft(config), seed=seed)
        attached = AttachedLora(base.model, slot, config)
        try:
            if state is not None:
                attached.fill(state)
        except MismatchError:
            attached.detach()
            raise
        attached.deactivate()
        return attached

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        return lora_patches(config, state)


class AttachedLora:
    """One LoRA in one slot of a model."""

    def __init__(self, model: Any, slot: str, config: Mapping[str, Any]) -> None:
        import torch

        self.slot = slot
        self.config = config
        self._model = model
        self._layers = dict(_lora_layers(model, slot))
        self._scaling = {name: layer.scaling[slot] for name, layer in self._layers.items()}
        for tensor in self.parameters().values():
            # Small updates vanish in bfloat16, so adapters are float32 whatever the base is.
            tensor.data = tensor.data.to(torch.float32)

    def parameters(self) -> Mapping[str, Any]:
        """Stored name -> parameter, as PEFT names them: base_model.model.<module>.lora_A.weight."""
        found = {}
        for name, layer in self._layers.items():
            for part in _PARTS:
                holder = getattr(layer, part, None)
                if holder is None or self.slot not in holder:
                    continue
                entry = holder[self.slot]
                weight = getattr(entry, "weight", entry)
                suffix = f".{part}" if "embedding" in part else f".{part}.weight"
                found[f"{PEFT_PREFIX}{name}{suffix}"] = weight
        return found

    def state(self) -> dict[str, Any]:
        return {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.parameters().items()
        }

    def fill(self, state: Mapping[str, Any]) -> None:
        """Copy stored tensors in. Raises MismatchError unless names and shapes agree both ways."""
        import torch

        parameters = self.parameters()
        _check_names(stored=set(state), expected=set(parameters))
        for name, tensor in parameters.items():
            if tuple(state[name].shape) != tuple(tensor.shape):
                raise MismatchError(
                    f"{name} has shape {tuple(state[name].shape)}, "
                    f"but this base takes {tuple(tensor.shape)}",
                    hint="the adapter was made for another base; `adapterhub show` names it",
                )
            with torch.no_grad():
                tensor.copy_(state[name])

    def activate(self, weight: float | Sequence[float] = 1.0) -> None:
        if isinstance(weight, Sequence):
            raise CapabilityError(
                "lora gives no row of a batch its own weight", hint="run the rows apart"
            )
        for name, layer in self._layers.items():
            layer.scaling[self.slot] = self._scaling[name] * weight
            active = [slot for slot in layer.active_adapters if slot != self.slot]
            layer.set_adapter([*active, self.slot], inference_mode=True)

    def deactivate(self) -> None:
        for name, layer in self._layers.items():
            layer.scaling[self.slot] = self._scaling[name]
            active = [slot for slot in layer.active_adapters if slot != self.slot]
            layer.set_adapter(active, inference_mode=True)

    def detach(self) -> None:
        self.deactivate()
        for name, layer in self._layers.items():
            others = [slot for slot in layer.active_adapters if slot != self.slot]
            layer.delete_adapter(self.slot)
            if layer.r:
                # Deleting makes peft activate another slot of its choice; ours stay as they were.
                layer.set_adapter(others, inference_mode=True)
            else:
                parent, _, leaf = name.rpartition(".")
                setattr(self._model.get_submodule(parent), leaf, layer.get_base_layer())
        self._layers = {}
        configs = getattr(self._model, "peft_config", None)
        if configs is not None:  # a peft that failed to attach may have cleared it already
            configs.pop(self.slot, None)
            if not configs:
                del self._model.peft_config


def _inject(model: Any, slot: str, config: Any, *, seed: int) -> None:
    """Raises MismatchError, with the model as it was, for layers that peft cannot wrap."""
    import torch
    from peft import inject_adapter_in_model

    with warnings.catch_warnings(), torch.random.fork_rng():
        # Several slots on one base are what slots are for.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        # GPT-2's layers are transposed until they are quantized; peft looks and corrects itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, adapter_name=slot)
        except ValueError as error:
            AttachedLora(model, slot, {}).detach()
            raise MismatchError(
                f"the adapter does not fit this base: {str(error).splitlines()[0]}",
                hint="it was made for another base; `adapterhub show` names it",
            ) from error


def _lora_layers(model: Any, slot: str) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and slot in module.r:
            yield name, module


def _check_names(*, stored: set[str], expected: set[str]) -> None:
    missing, extra = sorted(expected - stored), sorted(stored - expected)
    if not expected & stored:
        raise MismatchError(
            f"none of the adapter's {len(stored)} tensors belongs to a layer of this base "
            f"(its first is {extra[0] if extra else 'missing'})",
            hint="the adapter was made for another base or saved under another prefix",
        )
    if missing:
        raise MismatchError(
            f"the file lacks {len(missing)} of {len(expected)} tensors that its config calls for, "
            f"first {missing[0]}",
            hint="the file was cut or its config edited; pull it again or ask its author",
        )
    if extra:
        raise MismatchError(
            f"the file holds {len(extra)} tensors that its config does not use, first {extra[0]}",
            hint="loading it would ignore them; ask its author which of the two is right",
        )
