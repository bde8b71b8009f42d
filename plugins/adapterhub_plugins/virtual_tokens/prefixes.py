"""Prefix tuning (arXiv 2101.00190): trained keys and values before the input, in every layer.

They have no position, being used as they are stored. Without a projection they start as those of
real tokens (section 7.4); a projection trains them through a network that is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adapterhub.domain.attached import check_state
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.patch import Patch, Prompt
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import CapabilityError
from adapterhub_plugins.virtual_tokens.attached import AttachedTokens
from adapterhub_plugins.virtual_tokens.config import (
    PREFIX,
    PROJECTION_HIDDEN,
    check_stored,
    completed,
    prefix_config,
    stored_config,
)
from adapterhub_plugins.virtual_tokens.encoders import STORED, Encoder, prefix_encoder, table
from adapterhub_plugins.virtual_tokens.front import Front, front_of
from adapterhub_plugins.virtual_tokens.start import starting_embeddings

if TYPE_CHECKING:
    from torch import Tensor

    from adapterhub_plugins.virtual_tokens.attention import Layers


class PrefixTuning:
    """`adapterhub.domain.protocols.AdapterMethod`."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        return prefix_config(base, options)

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedTokens:
        full = completed(config, base, PREFIX)
        if state is not None:
            check_state(state, {STORED: _shape(full)})
        front = front_of(base)
        encoder = (
            _fresh(front, full, seed=seed)
            if state is None
            else table(state[STORED].to(base.device))
        )
        front.take(slot)

        def in_layers(rows: Tensor, ahead: Layers) -> Layers:
            return [(keys[None], values[None]) for keys, values in _key_values(rows, full)]

        return AttachedTokens(front, slot, stored_config(full), encoder, in_layers)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        """Raises CapabilityError for a config without sizes, unless there is a base to take them
        from: the keys of several heads lie side by side in one row."""
        sizes = config if base is None else completed(config, base, PREFIX)
        self.check_tensors(sizes, state)
        yield "", Prompt(key_values=_key_values(state[STORED], sizes))

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        """Raises CapabilityError for a config without sizes, as `patches` does."""
        check_stored(config, PREFIX)
        if not all(config.get(name) for name in ("token_dim", "num_attention_heads", "num_layers")):
            raise CapabilityError(
                "the config does not say how many layers and heads the prefix is for",
                hint="attach the adapter to its base, and save it again",
            )
        check_state(tensors, {STORED: _shape(config)})


def _shape(config: Mapping[str, Any]) -> tuple[int, int]:
    return config["num_virtual_tokens"], 2 * config["num_layers"] * config["token_dim"]


def _key_values(rows: Tensor, config: Mapping[str, Any]) -> Tensor:
    """(tokens, layers * 2 * heads * width) to (layers, 2, heads, tokens, width)."""
    heads, layers = config["num_attention_heads"], config["num_layers"]
    split = rows.view(len(rows), layers, 2, heads, config["token_dim"] // heads)
    return split.permute(1, 2, 3, 0, 4)


def _fresh(front: Front, config: Mapping[str, Any], *, seed: int) -> Encoder:
    import torch

    if config.get("prefix_projection"):
        return prefix_encoder(
            config["num_virtual_tokens"],
            width=config["token_dim"],
            hidden=config.get("encoder_hidden_size") or PROJECTION_HIDDEN,
            out=_shape(config)[1],
            device=front.base.device,
            seed=seed,
        )
    with torch.no_grad():
        layers = front.run(starting_embeddings(front.base, config, seed=seed))
    stacked = torch.stack([torch.cat(pair).float() for pair in layers])
    return table(stacked.permute(3, 0, 1, 2, 4).reshape(_shape(config)))
