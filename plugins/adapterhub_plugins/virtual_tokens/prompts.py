"""Prompt tuning (arXiv 2104.08691) and p-tuning (2103.10385): trained embeddings before the input.

Both store the same thing and differ in how it is trained: directly, or through a small network that
is thrown away afterwards. Knows nothing of attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from adapterhub.domain.attached import check_state
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.patch import Patch, Prompt
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import CapabilityError
from adapterhub_plugins.virtual_tokens.attached import AttachedTokens
from adapterhub_plugins.virtual_tokens.config import (
    ENCODED,
    PROMPT,
    check_stored,
    completed,
    encoded_config,
    prompt_config,
    stored_config,
)
from adapterhub_plugins.virtual_tokens.encoders import STORED, Encoder, prompt_encoder, table
from adapterhub_plugins.virtual_tokens.front import front_of
from adapterhub_plugins.virtual_tokens.start import starting_embeddings


class PromptTuning:
    """`adapterhub.domain.protocols.AdapterMethod`."""

    peft_type: ClassVar[str] = PROMPT

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        return prompt_config(base, options)

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedTokens:
        full = self.complete(base, config)
        if state is None:
            encoder = self.fresh(base, full, seed=seed)
        else:
            check_state(state, {STORED: (full["num_virtual_tokens"], full["token_dim"])})
            encoder = table(state[STORED].to(base.device))
        front = front_of(base)
        front.take(slot)
        return AttachedTokens(front, slot, stored_config(full), encoder, front.run)

    def complete(self, base: LoadedBase, config: Mapping[str, Any]) -> dict[str, Any]:
        return completed(config, base, self.peft_type)

    def fresh(self, base: LoadedBase, config: Mapping[str, Any], *, seed: int) -> Encoder:
        return table(starting_embeddings(base, config, seed=seed))

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        self.check_tensors(config, state)
        yield "", Prompt(embeddings=state[STORED])

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None = None
    ) -> None:
        check_stored(config, self.peft_type)
        rows = tensors.get(STORED)
        width = config.get("token_dim") or (0 if rows is None else rows.shape[-1])
        check_state(tensors, {STORED: (config["num_virtual_tokens"], width)})


class PTuning(PromptTuning):
    """The same tokens, trained through peft's `PromptEncoder`. What was stored goes on training
    directly: the network is not stored."""

    peft_type: ClassVar[str] = ENCODED

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        return encoded_config(base, options)

    def complete(self, base: LoadedBase, config: Mapping[str, Any]) -> dict[str, Any]:
        full = completed(config, base, self.peft_type)
        return {**full, "encoder_hidden_size": full.get("encoder_hidden_size") or full["token_dim"]}

    def fresh(self, base: LoadedBase, config: Mapping[str, Any], *, seed: int) -> Encoder:
        kind = config.get("encoder_reparameterization_type", "MLP")
        if kind != "MLP":
            raise CapabilityError(
                f"p_tuning here trains through an MLP, not through {kind}",
                hint="start from options, or load what was trained elsewhere",
            )
        return prompt_encoder(
            config["num_virtual_tokens"],
            width=config["token_dim"],
            hidden=config["encoder_hidden_size"],
            device=base.device,
            seed=seed,
        )
