"""The 21 faults that were planted in peft first."""

from __future__ import annotations

from typing import Any

import torch

from tests.faults.draft import Draft, Tensors
from tests.faults.fault import Fault

FOREIGN = "transformer.h"


def zero_b(draft: Draft) -> None:
    draft.each(lambda name, t: torch.zeros_like(t) if "lora_B" in name else t)


def extra(found: Tensors) -> Tensors:
    return found | {"base_model.model.model.adapter_scale.weight": torch.ones(4, 4)}


def half(found: Tensors) -> Tensors:
    return {name: t for name, t in found.items() if "layers.0" in name}


def elsewhere(draft: Draft) -> None:
    draft.rename("model.layers", FOREIGN)


def rslora(draft: Draft) -> None:
    draft.config(use_rslora=not draft.read_config().get("use_rslora"))


def wider(name: str, tensor: Any) -> Any:
    return torch.cat([tensor, tensor], dim=1) if "lora_A" in name else tensor


MEASURED: tuple[Fault, ...] = (
    Fault(name="all lora_B are zero", says="lora_B is zero in 6 of 6 modules", plant=zero_b),
    Fault(
        name="every value is NaN",
        says="12 of 12 tensors hold NaN",
        plant=lambda d: d.each(lambda _, t: torch.full_like(t, float("nan"))),
    ),
    Fault(
        name="the config's targets are fewer than the file's",
        says=r"modules in the file are no targets of the config.*v_proj",
        plant=lambda d: d.config(target_modules=["q_proj", "down_proj"]),
    ),
    Fault(
        name="the file holds a tensor that the config has no place for",
        says=r"1 tensors have no place in the config.*adapter_scale",
        plant=lambda d: d.tensors(extra),
    ),
    Fault(
        name="another base's weights, of the same shape",
        says="its weights are others|same shape and other weights",
        base="stranger",
    ),
    Fault(name="a base with fewer layers", says="its weights are others", base="shallow"),
    Fault(name="a base with more layers", says="its weights are others", base="deep"),
    Fault(
        name="the base's vocabulary was resized",
        says="names, shapes or precision are not this base",
        base="resized",
    ),
    Fault(
        name="lora_alpha times 100",
        says="times as large",
        plant=lambda d: d.config(lora_alpha=100 * d.read_config()["lora_alpha"]),
        probe=True,
    ),
    Fault(name="use_rslora flipped", says="times as large", plant=rslora, probe=True),
    Fault(
        name="base_model_name_or_path changed",
        says="for acme/other",
        plant=lambda d: d.config(base_model_name_or_path="acme/other"),
    ),
    Fault(name="another revision of the base", says="bbbbbbbb", base="tuned"),
    Fault(name="a second adapter is loaded, not activated", says="changes nothing", use="asleep"),
    Fault(
        name="a wrong prefix, loaded by name and set active",
        says="do not start with base_model.model",
        plant=lambda d: d.rename("base_model.model.", ""),
        use="by-name",
    ),
    Fault(
        name="no tensor belongs to a layer of the base",
        says="none of the adapter's 12 tensors belongs to a layer",
        plant=elsewhere,
    ),
    Fault(
        name="a wrong prefix",
        says="do not start with base_model.model",
        plant=lambda d: d.rename("base_model.", "module."),
    ),
    Fault(
        name="half the keys are missing",
        says=r"lacks 6 of 12 tensors.*layers\.1",
        plant=lambda d: d.tensors(half),
    ),
    Fault(
        name="a config key from the future",
        says="use_quantum_lora",
        plant=lambda d: d.config(use_quantum_lora=True),
    ),
    Fault(
        name="the config's rank is not the file's",
        says=r"not of the config's rank.*rank 8; A \[4",
        plant=lambda d: d.config(r=8),
    ),
    Fault(
        name="the base has no module of these names",
        says="weights are others|does not fit",
        base="gpt2",
    ),
    Fault(
        name="the file is for a wider base",
        says=r"has shape .*but this base takes",
        plant=lambda d: d.each(wider),
    ),
)
