"""Prompt design (few-shot prompting, arXiv 2005.14165) as a method: configure, attach, describe.

Works on conversations; what a base makes of one is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.evaluation import Message
from adapterhub.domain.options import refuse_unknown
from adapterhub.domain.patch import Patch, Prompt
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import CapabilityError, FormatError, MismatchError, UsageError
from adapterhub_plugins.prompt_design import OPTIONS
from adapterhub_plugins.prompt_design.design import FIELDS, METHOD, Design, read_design

_BASE = "base_model_name_or_path"
_KEYS = {"method", _BASE, *FIELDS}


class PromptDesign:
    """`adapterhub.domain.protocols.AdapterMethod`. Its config is the whole adapter."""

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        """Raises NoEffectError when nothing is left to put before a conversation."""
        refuse_unknown(METHOD, options, OPTIONS)
        design = read_design(options, error=UsageError)
        return {"method": METHOD, _BASE: base.id, **design.stored()}

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedDesign:
        design = stored_design(config, state or {})
        taken: set[str] = base.shared.setdefault(METHOD, set())
        if slot in taken:
            raise UsageError(f"the slot {slot!r} is taken", hint="detach it first")
        taken.add(slot)
        return AttachedDesign(slot, config, design, taken)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        design = stored_design(config, state)
        texts = tuple((turn.role, turn.content) for turn in design.before())
        yield "", Prompt(messages=texts, template=design.template)


class AttachedDesign:
    """One design under one slot of a base, whose model it never touches."""

    def __init__(
        self, slot: str, config: Mapping[str, Any], design: Design, taken: set[str]
    ) -> None:
        self.slot = slot
        self.config = config
        self._design = design
        self._taken = taken

    def parameters(self) -> Mapping[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def activate(self, weight: float | Sequence[float] | Mapping[str, float] = 1.0) -> None:
        if weight != 1.0:
            raise CapabilityError(
                f"a prompt cannot be said with the weight {weight}",
                hint="give it the weight 1, or leave it out",
            )

    def deactivate(self) -> None:
        """There is nothing on the model to take away."""

    def detach(self) -> None:
        self._taken.discard(self.slot)

    def messages(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return self._design.put_before(messages)


def stored_design(config: Mapping[str, Any], state: Mapping[str, Any]) -> Design:
    """Raises FormatError for a config that is none of this method's, MismatchError for tensors."""
    if state:
        raise MismatchError(
            f"{METHOD} stores no tensors, and there are {len(state)}, first {min(state)}",
            hint="it is another method's adapter; `adapterhub verify` says what is wrong",
        )
    unknown = next((key for key in config if key not in _KEYS), None)
    if config.get("method") != METHOD or unknown is not None:
        fact = f"has the unknown key {unknown!r}" if unknown else f"does not name {METHOD}"
        raise FormatError(
            f"the config of a prompt design {fact}", hint="ask its author to write it anew"
        )
    return read_design(config, error=FormatError)
