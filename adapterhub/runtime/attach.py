"""Put stored adapters onto a loaded base, each under a slot of its own.

Knows folders, methods and slots; which slots take part in a request is the engine's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.engines import Slots
from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import AdapterMethod, AttachedAdapter, LoadedBase
from adapterhub.errors import CapabilityError
from adapterhub.hub.folder import AdapterFolder
from adapterhub.models.quiet import quiet
from adapterhub.plugin.catalog import catalog, load_target


@dataclass
class Rack:
    """A base and the adapters on it. Attaching is remembered by slot, so that compositions that
    share an adapter share its weights in memory."""

    base: LoadedBase
    attached: dict[str, AttachedAdapter] = field(default_factory=dict)

    def attach(self, slot: str, folder: AdapterFolder) -> AttachedAdapter:
        """Attach a stored adapter, if the slot does not hold it already."""
        if slot not in self.attached:
            method = method_of(folder.manifest.method)
            self._check(folder)
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

    def activate(self, slots: Slots) -> None:
        """Exactly these slots take part from now on, with these weights."""
        wanted = dict(slots)
        for slot, adapter in self.attached.items():
            if slot not in wanted:
                adapter.deactivate()
        for slot, weight in wanted.items():
            self.attached[slot].activate(weight)

    def detach(self, slot: str) -> None:
        self.attached.pop(slot).detach()

    def _check(self, folder: AdapterFolder) -> None:
        record = catalog().methods[folder.manifest.method]
        quantized = self.base.spec.scheme.quantized
        if quantized and Capability.QUANTIZED_BASE not in record.capabilities:
            raise CapabilityError(
                f"{record.name} does not work on a quantized base ({self.base.spec.scheme})",
                hint=f"add the base unquantized: adapterhub base add NAME {self.base.spec.source} "
                "--scheme bf16",
            )


def method_of(name: str) -> AdapterMethod:
    """The method's object. Raises NotFoundError when no plugin provides it."""
    method: AdapterMethod = load_target(catalog().methods[name].target)()
    return method


def read_state(folder: AdapterFolder) -> dict[str, Any]:
    """Every stored tensor by name. The header is checked before the library sees the file."""
    from safetensors.torch import load_file

    from adapterhub.formats.safetensors_header import read_header

    if folder.weights_path is None:
        return {}
    read_header(folder.weights_path)
    return dict(load_file(folder.weights_path))
