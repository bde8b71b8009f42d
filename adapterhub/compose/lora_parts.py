"""A stored LoRA as factors by module, DoRA's magnitudes included, without any base.

Reads peft's names and config (0.21); refused is what more the file may hold than factors, unless
it belongs to a module that both layouts have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterhub.domain.manifest import PEFT_PREFIX
from adapterhub.domain.patterns import value_for
from adapterhub.errors import CapabilityError, FormatError

if TYPE_CHECKING:
    from torch import Tensor

_A, _B = ".lora_A.weight", ".lora_B.weight"
_MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
# Kept with the tensors they speak of; those lie beside the factors and are no part of them.
KEPT = ("modules_to_save", "trainable_token_indices")
_REFUSED = {
    "target_parameters": "LoRA on bare parameters",
    "layer_replication": "replicated layers",
    "megatron_config": "Megatron's layers",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "BD-LoRA",
    "lora_bias": "LoRA with biases of its own",
}
# With these, peft subtracts something from the base's weights when it loads the adapter.
_BASE_CHANGING_STARTS = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraPart:
    """y = W x + scaling B A x: A (rank, in), B (out, rank). With DoRA, by row, magnitude (out,)
    times (W + scaling B A) / ||W + scaling B A||."""

    A: Tensor
    B: Tensor
    scaling: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.A.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.B.shape[0]), int(self.A.shape[1])


def read_lora(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, LoraPart], dict[str, Tensor]]:
    """The factors by module, and the tensors of KEPT as they are stored.

    Raises CapabilityError for what is more than that, FormatError for a file that is incomplete.
    """
    _refuse(config)
    modules = sorted(
        {name[len(PEFT_PREFIX) : -len(_A)] for name in state if name.endswith(_A)}
        | {name[len(PEFT_PREFIX) : -len(_B)] for name in state if name.endswith(_B)}
    )
    rest = dict(state)
    parts = {module: _part(module, config, rest) for module in modules}
    for name in rest:
        if ".lora_" in name or not any(config.get(key) for key in KEPT):
            raise CapabilityError(
                f"{name} is no factor of a linear layer's LoRA, and nothing else is converted",
                hint="convert an adapter without it",
            )
    return parts, rest


def _part(module: str, config: Mapping[str, Any], rest: dict[str, Tensor]) -> LoraPart:
    try:
        A, B = (rest.pop(f"{PEFT_PREFIX}{module}{part}") for part in (_A, _B))
    except KeyError as error:
        raise FormatError(
            f"the file has no {error.args[0]}", hint="it is incomplete; save or pull it again"
        ) from error
    if A.ndim != 2 or B.ndim != 2:
        raise CapabilityError(
            f"{module} is a convolution, which is in one layout only", hint="use it as it is"
        )
    magnitude = None
    for suffix in _MAGNITUDES:
        magnitude = rest.pop(f"{PEFT_PREFIX}{module}{suffix}", magnitude)
    if bool(config.get("use_dora")) != (magnitude is not None):
        raise FormatError(
            f"config and file disagree on whether {module} has a DoRA magnitude",
            hint="they do not belong together; pull the adapter again",
        )
    rank = int(A.shape[0])
    alpha = float(value_for(module, config.get("alpha_pattern"), config["lora_alpha"]))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LoraPart(A=A, B=B, scaling=scaling, magnitude=magnitude)


def _refuse(config: Mapping[str, Any]) -> None:
    found = next((what for key, what in _REFUSED.items() if config.get(key)), None)
    if config.get("bias", "none") != "none":
        found = "biases of the base, trained"
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_BASE_CHANGING_STARTS):
        found = f"a start from {start!r}, which changes the base's own weights"
    if found:
        raise CapabilityError(
            f"this adapter uses {found}, which cannot be converted", hint="use it as it is"
        )
