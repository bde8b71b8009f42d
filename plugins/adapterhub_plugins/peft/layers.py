"""peft's layers on a model: put them in, say which slots take part, take them out.

Knows slots and modules; what an adapter is and how it is stored is the method's business.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from adapterhub.errors import MismatchError


def inject(model: Any, slot: str, config: Any, *, seed: int) -> None:
    """Wrap the layers that the config names; other slots keep their part.

    Raises MismatchError, with the model as it was, for layers that peft cannot wrap.
    """
    import torch
    from peft import inject_adapter_in_model

    # peft draws on the CPU, so that the state of no other device is at stake.
    with others_undisturbed(model), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Several slots on one base are what slots are for.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        # GPT-2's layers are transposed until they are quantized; peft looks and corrects itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        # Asked of a fresh adapter by its method; of a stored one, its shapes tell.
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
        torch.default_generator.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, adapter_name=slot)
        except ValueError as error:
            remove(model, slot)
            raise MismatchError(
                f"the adapter does not fit this base: {str(error).splitlines()[0]}",
                hint="it was made for another base; `adapterhub show` names it",
            ) from error


def layers_of(model: Any, slot: str | None = None) -> Iterator[tuple[str, Any]]:
    """(name, layer) of every layer that peft wrapped, or of those that hold this slot."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and (slot is None or slot in module.r):
            yield name, module


def take_part(layer: Any, slots: Sequence[str]) -> None:
    """Exactly these slots take part. In peft that also decides what is trained, which here is
    left as it is."""
    flags = [(tensor, tensor.requires_grad) for tensor in layer.parameters()]
    layer.set_adapter(list(slots), inference_mode=True)
    for tensor, flag in flags:
        tensor.requires_grad_(flag)


def remove(model: Any, slot: str) -> None:
    """Take the slot out; a layer without any other is the base's own again."""
    with others_undisturbed(model):
        for name, layer in list(layers_of(model, slot)):
            take_part(layer, [other for other in layer.active_adapters if other != slot])
            layer.delete_adapter(slot)
            layer.lora_variant.pop(slot, None)  # which peft forgets to delete
            if not layer.r:
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, layer.get_base_layer())
    configs = getattr(model, "peft_config", None)
    if configs is not None:  # a peft that failed to attach may have cleared it already
        configs.pop(slot, None)
        if not configs:
            del model.peft_config


@contextmanager
def others_undisturbed(model: Any) -> Iterator[None]:
    """Afterwards, the slots that were there and still are take part as before, and what was being
    trained still is. peft activates what it attaches, and another slot for one it deletes."""
    active = [(layer, list(layer.active_adapters)) for _, layer in layers_of(model)]
    flags = [(tensor, tensor.requires_grad) for tensor in model.parameters()]
    try:
        yield
    finally:
        for layer, slots in active:
            take_part(layer, [slot for slot in slots if slot in layer.r])
        for tensor, flag in flags:
            tensor.requires_grad_(flag)
