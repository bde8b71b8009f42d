"""Full fine-tuning: every weight trains, and the difference to the base is what is stored.

What is trained is that difference, in float32, from zero. The tuned weights are the sums p + d of
the base's and the stored values, so the two rebuild them bit for bit; rounding d to bfloat16 would
not. It knows parameters by name, not what they are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from adapterhub.domain import options as read
from adapterhub.domain.attached import SiteAdapter, check_keys, check_state, taking_part
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.patch import Patch, Weights
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.sites import Handle
from adapterhub.domain.stored_modules import check_blocks
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub_plugins.full import OPTIONS

PARTS = ("all", "layers")
_KEYS = ("method", "base_model_name_or_path", "revision", "parts")


class Full:
    """`adapterhub.domain.protocols.AdapterMethod`. Option: `parts`, all weights or those of the
    blocks (layers), without embeddings, last norm and head."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        read.refuse_unknown("full", options, OPTIONS)
        _refuse_quantized(base)
        return {
            "method": "full",
            "base_model_name_or_path": base.id,
            "revision": None if base.revision.startswith("sha256:") else base.revision,
            "parts": read.choice(options, "parts", "all", PARTS),
        }

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedFull:
        """Starts at zero, so that `seed` changes nothing."""
        import torch
        from torch import nn

        _refuse_quantized(base.spec)
        check_keys("full", config, _KEYS)
        own = _trained(base, read.choice(config, "parts", "all", PARTS))
        if state is not None:
            check_state(state, {name: tuple(p.shape) for name, p in own.items()})
        differences = {}
        for name, parameter in own.items():
            if state is None:
                start = torch.zeros_like(parameter, dtype=torch.float32)
            else:
                start = state[name].to(parameter.device, torch.float32, copy=True)
            differences[name] = nn.Parameter(start, requires_grad=False)
        return AttachedFull(base, slot, config, differences=differences)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        """A weight that two modules share is one parameter, named once."""
        for name, difference in sorted(state.items()):
            module, _, leaf = name.rpartition(".")
            yield module, Weights(difference=difference, parameter=leaf)

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        """Which weights a base has, and of what shape, is known to the base alone: what is told
        here is whether every block has the same."""
        check_keys("full", config, _KEYS)
        parts = read.choice(config, "parts", "all", PARTS)
        outside = [name for name in tensors if not any(map(str.isdigit, name.split(".")))]
        if not tensors or (parts == "all") != bool(outside):
            raise MismatchError(
                f"the file has {len(outside)} of {len(tensors)} tensors outside of blocks, and its "
                f"config says {parts!r}",
                hint="the file was cut or its config edited; pull it again or ask its author",
            )
        check_blocks(tensors, family=family)


class AttachedFull(SiteAdapter):
    method = "full"
    per_module = True

    def __init__(
        self, base: LoadedBase, slot: str, config: Mapping[str, Any], *, differences: dict[str, Any]
    ) -> None:
        super().__init__(base, slot, config)
        self._differences = differences

    def parameters(self) -> Mapping[str, Any]:
        return self._differences

    def changes(self, weight: Any) -> Iterator[Handle]:
        named = ((name.rpartition(".")[0], name) for name in self._differences)
        for name, own in taking_part(weight, named):
            change = partial(_weighted, self._differences[name], own)
            yield self.base.add_to_parameter(name, change)


def _weighted(difference: Any, weight: float) -> Any:
    # Not even the product with one, which a graph would keep for the backward pass.
    return difference if weight == 1 else weight * difference


def _trained(base: LoadedBase, parts: str) -> dict[str, Any]:
    """The base's parameters by name. Raises UsageError where its blocks are not known."""
    own = dict(base.parameters())
    if parts == "all":
        return own
    blocks = tuple(f"{name.rpartition('.')[0]}." for name in base.sites("mlp"))
    if not blocks:
        raise UsageError(
            f"which weights are blocks is not known for the family {base.spec.family!r}",
            hint='use parts "all"',
        )
    return {name: parameter for name, parameter in own.items() if name.startswith(blocks)}


def _refuse_quantized(base: BaseSpec) -> None:
    if base.scheme.quantized:
        raise CapabilityError(
            f"full trains the weights themselves, and {base.name} keeps them in {base.scheme}",
            hint=f"add the base unquantized: adapterhub base add NAME {base.source} --scheme bf16",
        )
