"""Let forward passes see other values in the place of a base's parameters, which stay as they are.

A module's parameter is exchanged when its forward begins and put back when it ends, so that the
sum p + difference carries a gradient to the difference alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from adapterhub.errors import NotFoundError
from adapterhub.models.sites import Listed

Change = Callable[[], Any]


class Overlay:
    """The parameters of a model by name, and what is added to each."""

    def __init__(self, model: Any) -> None:
        self.parameters: dict[str, Any] = dict(model.named_parameters())
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        # A tied parameter belongs to several modules.
        self._owners: dict[str, list[tuple[Any, str]]] = {name: [] for name in self.parameters}
        self._attributes: dict[Any, list[tuple[str, str]]] = {}
        for module in model.modules():
            for attribute, parameter in module.named_parameters(recurse=False):
                name = names[id(parameter)]
                self._owners[name].append((module, attribute))
                self._attributes.setdefault(module, []).append((attribute, name))
        self._changes: dict[str, list[Change]] = {}
        self._hooks: dict[str, list[Any]] = {}

    def add(self, name: str, change: Change) -> Listed:
        """Raises NotFoundError for a name that the base does not have."""
        if name not in self.parameters:
            raise NotFoundError(
                f"the base has no parameter {name}", hint="the adapter was made for another base"
            )
        changes = self._changes.setdefault(name, [])
        changes.append(change)
        if name not in self._hooks:
            self._hooks[name] = [
                hook for owner in self._owners[name] for hook in self._hook(name, *owner)
            ]
        return Listed(changes, change, partial(self._unhook, name))

    def changes(self, module: Any) -> bool:
        """Whether something is added to a parameter of this very module."""
        return any(self._changes.get(name) for _, name in self._of(module))

    @contextmanager
    def own(self, module: Any) -> Iterator[None]:
        """Let the module see its own parameters for the length of a block within its forward."""
        seen = dict(module._parameters)
        for attribute, name in self._of(module):
            module._parameters[attribute] = self.parameters[name]
        try:
            yield
        finally:
            module._parameters.update(seen)

    def _of(self, module: Any) -> list[tuple[str, str]]:
        return self._attributes.get(module, [])

    def _hook(self, name: str, module: Any, attribute: str) -> tuple[Any, Any]:
        def exchange(module: Any, args: Any) -> None:
            module._parameters[attribute] = self._sum(name)

        def put_back(module: Any, args: Any, output: Any) -> None:
            module._parameters[attribute] = self.parameters[name]

        return (
            module.register_forward_pre_hook(exchange),
            module.register_forward_hook(put_back, always_call=True),
        )

    def _sum(self, name: str) -> Any:
        import torch

        own = self.parameters[name]
        total = own.to(torch.promote_types(own.dtype, torch.float32))
        for change in self._changes[name]:
            total = total + change()
        return total.to(own.dtype)

    def _unhook(self, name: str) -> None:
        for hook in self._hooks.pop(name, ()):
            hook.remove()
