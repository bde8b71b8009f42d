"""Put stored adapters onto a loaded base, each under a slot of its own.

Knows folders, methods and slots; which slots take part in a request is the engine's business.
Whoever has a rack lets it activate: it remembers what is active, and in which order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.engines import Slots, Weight
from adapterhub.domain.evaluation import Message
from adapterhub.domain.method import Capability, Method
from adapterhub.domain.protocols import (
    AttachedAdapter,
    LoadedBase,
    PrecedesInput,
    RewritesMessages,
)
from adapterhub.errors import CapabilityError
from adapterhub.hub.folder import AdapterFolder
from adapterhub.models.quiet import quiet
from adapterhub.plugin.catalog import catalog
from adapterhub.plugin.stored import StoredMethod, open_method


@dataclass
class Rack:
    """A base and the adapters on it. Attaching is remembered by slot, so that compositions that
    share an adapter share its weights in memory."""

    base: LoadedBase
    attached: dict[str, AttachedAdapter] = field(default_factory=dict)
    _active: list[tuple[str, Weight]] = field(default_factory=list)

    def attach(self, slot: str, folder: AdapterFolder) -> AttachedAdapter:
        """Attach a stored adapter, if the slot does not hold it already."""
        if slot not in self.attached:
            method = open_method(self.check_base(folder))
            with quiet():
                self.attached[slot] = method.attach(
                    self.base, slot, folder.config or {}, state=read_state(folder)
                )
        return self.attached[slot]

    def attach_fresh(
        self, slot: str, method: str, config: Mapping[str, Any], *, seed: int
    ) -> AttachedAdapter:
        """Attach a new adapter to be trained."""
        with quiet():
            self.attached[slot] = method_of(method).attach(self.base, slot, config, seed=seed)
        return self.attached[slot]

    def activate(self, slots: Slots, *, sequential: bool = False) -> None:
        """Exactly these slots take part from now on, with these weights and activated in this
        order, in which they feed each other if `sequential`.

        Those that begin the order already are left as they are. When an adapter refuses, none takes
        part.
        """
        kept = _common(self._active, slots)
        self._silence(kept)
        self.base.sequential = sequential
        try:
            for slot, weight in slots[kept:]:
                self.attached[slot].activate(weight)
                self._active.append((slot, weight))
        except BaseException:
            self._silence(0)
            self.base.sequential = False
            raise

    def check_weight(self, slot: str, weight: Weight) -> None:
        """Raises CapabilityError for a weight that means nothing to the adapter, found by trying;
        the slot takes no part afterwards."""
        try:
            self.attached[slot].activate(weight)
        finally:
            self.attached[slot].deactivate()
            self._forget(slot)

    def rewritten(
        self, messages: tuple[Message, ...], slots: Slots, *, sequential: bool = False
    ) -> tuple[Message, ...]:
        """The conversation as these slots' adapters would have it, each given what the one before
        it made. They are active afterwards, if any of them has a say in it."""
        rewriting = self._rewriting(slots)
        if rewriting:
            self.activate(slots, sequential=sequential)
        for adapter in rewriting.values():
            messages = adapter.messages(messages)
        return messages

    def rewriting(self, slots: Slots) -> list[str]:
        """Those of these slots whose adapters have a say in a conversation."""
        return list(self._rewriting(slots))

    def _rewriting(self, slots: Slots) -> dict[str, RewritesMessages]:
        found = ((slot, self.attached[slot]) for slot, _ in slots)
        return {slot: adapter for slot, adapter in found if isinstance(adapter, RewritesMessages)}

    def virtual_tokens(self, slots: Slots) -> int:
        """How many tokens these slots' adapters put before the input, beyond its own."""
        adapters = [self.attached[slot] for slot, _ in slots]
        return sum(a.virtual_tokens for a in adapters if isinstance(a, PrecedesInput))

    def detach(self, slot: str) -> None:
        self._forget(slot)
        self.attached.pop(slot).detach()

    def _forget(self, slot: str) -> None:
        self._active = [entry for entry in self._active if entry[0] != slot]

    def _silence(self, kept: int) -> None:
        """Deactivate all but the first `kept` that are active, whoever activated the others."""
        staying = {slot for slot, _ in self._active[:kept]}
        del self._active[kept:]
        for slot, adapter in self.attached.items():
            if slot not in staying:
                adapter.deactivate()

    def check_base(self, folder: AdapterFolder) -> Method:
        """The method's record. Raises NotFoundError for a method that is not here, CapabilityError
        for a base that it does not work on."""
        record = catalog().method_for(folder.manifest)
        quantized = self.base.spec.scheme.quantized
        if quantized and Capability.QUANTIZED_BASE not in record.capabilities:
            raise CapabilityError(
                f"{record.name} does not work on a quantized base ({self.base.spec.scheme})",
                hint=f"add the base unquantized: adapterhub base add NAME {self.base.spec.source} "
                "--scheme bf16",
            )
        return record


def _common(one: Sequence[tuple[str, Weight]], other: Sequence[tuple[str, Weight]]) -> int:
    """How many entries both begin with."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def method_of(name: str) -> StoredMethod:
    """The method's object. Raises NotFoundError when no plugin provides it."""
    return open_method(catalog().methods[name])


def read_state(folder: AdapterFolder) -> dict[str, Any]:
    """Every stored tensor by name. The header is checked before the library sees the file."""
    from safetensors.torch import load_file

    from adapterhub.formats.safetensors_header import read_header

    if folder.weights_path is None:
        return {}
    read_header(folder.weights_path)
    return dict(load_file(folder.weights_path))
