"""A method as the rest of adapterhub calls it: what a stranger stored is never a bug of this one.

Knows configs and errors; what a method does with either is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from adapterhub.domain.attached import lacks_key
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import CONFIG_FILE
from adapterhub.domain.method import Method
from adapterhub.domain.patch import Patch
from adapterhub.domain.protocols import (
    AdapterMethod,
    AttachedAdapter,
    ChecksTensors,
    LoadedBase,
)
from adapterhub.errors import FormatError, UsageError
from adapterhub.plugin.catalog import load_target


def open_method(record: Method) -> StoredMethod:
    """The method's object, behind the fence. Raises PluginError when there is none."""
    return StoredMethod(record.name, load_target(record.target)())


class StoredConfig(dict[str, Any]):
    """A stored config that says what it lacks: FormatError, where a dict has a KeyError."""

    def __init__(self, method: str, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.method = method

    def __missing__(self, key: str) -> Any:
        raise lacks_key(self.method, key)


class StoredMethod:
    """`adapterhub.domain.protocols.AdapterMethod`, round a plugin's own."""

    def __init__(self, name: str, within: AdapterMethod) -> None:
        self.name = name
        self.within = within

    def new_config(self, base: BaseSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        return self.within.new_config(base, options)

    def attach(
        self,
        base: LoadedBase,
        slot: str,
        config: Mapping[str, Any],
        *,
        state: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> AttachedAdapter:
        known = StoredConfig(self.name, config)
        if state is None:  # a person's own options, a moment ago
            return self.within.attach(base, slot, known, seed=seed)
        with self._not_asked_for():
            return self.within.attach(base, slot, known, state=state, seed=seed)

    def patches(
        self,
        config: Mapping[str, Any],
        state: Mapping[str, Any],
        base: LoadedBase | None = None,
    ) -> Iterator[tuple[str, Patch]]:
        with self._not_asked_for():
            yield from self.within.patches(StoredConfig(self.name, config), state, base)

    def check_tensors(
        self, config: Mapping[str, Any], tensors: Mapping[str, Any], *, family: str | None
    ) -> bool:
        """Whether the method could tell that they fit; raises as `ChecksTensors` does."""
        if not isinstance(self.within, ChecksTensors):
            return False
        with self._not_asked_for():
            self.within.check_tensors(StoredConfig(self.name, config), tensors, family=family)
        return True

    @contextmanager
    def _not_asked_for(self) -> Iterator[None]:
        """What is wrong with a stored adapter is no fault of the command that reads it."""
        try:
            yield
        except UsageError as error:
            raise FormatError(
                f"{CONFIG_FILE} of this {self.name} adapter: {error.message}",
                hint="it was cut or edited; pull it again or ask its author",
            ) from error
