"""The sites of a loaded base, found once before anything is attached.

Knows modules, hooks and family tables; what is added at a site is a method's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapterhub.domain.layout import Heads, section_rows
from adapterhub.domain.sites import SiteKind
from adapterhub.domain.targets import FAMILIES
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.models.linear import linear_sites
from adapterhub.models.store import backend_for

if TYPE_CHECKING:
    from adapterhub.models.loader import Base

Change = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Listed:
    """One entry of a list of changes, until it is removed."""

    changes: list[Change]
    change: Change
    emptied: Callable[[], None]

    def remove(self) -> None:
        if self.change in self.changes:
            self.changes.remove(self.change)
        if not self.changes:
            self.emptied()


@dataclass(eq=False)
class ModuleSite:
    """`adapterhub.domain.sites.Site`. Its hooks are there only while something is added.

    Where both what a module reads and what it answers are changed, the base's own y is computed
    beside the changed one; but not by an attention, whose cache a second pass would fill twice.
    """

    name: str
    kind: SiteKind
    module: Any
    base: Base
    _inputs: list[Change] = field(default_factory=list)
    _outputs: list[Change] = field(default_factory=list)
    _hooks: dict[str, Any] = field(default_factory=dict)
    _own_input: Any = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        from transformers.pytorch_utils import Conv1D

        if self.kind in ("attention", "mlp"):
            width = int(self.base.model.config.hidden_size)
            return (width, width)
        if self.kind == "linear":
            if isinstance(self.module, Conv1D):
                return (int(self.module.weight.shape[1]), int(self.module.weight.shape[0]))
            return (int(self.module.out_features), int(self.module.in_features))
        return tuple(self.module.weight.shape)

    @cached_property
    def sections(self) -> Mapping[str, tuple[int, int]]:
        family = FAMILIES.get(self.base.spec.family)
        parts = dict(family.fused).get(self.name.rpartition(".")[2], ()) if family else ()
        if self.kind != "linear" or not parts:
            return {}
        config = self.base.model.config
        queries = getattr(config, "num_attention_heads", 0)
        groups = getattr(config, "num_key_value_heads", queries)
        heads = Heads(queries=queries, groups=groups)
        found, first = {}, 0
        for part, rows in zip(
            parts, section_rows(self.shape[0], len(parts), heads) or (), strict=True
        ):
            found[part] = (first, first + rows)
            first += rows
        return found

    def weight(self) -> Any:
        import torch
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        if self.kind in ("attention", "mlp"):
            raise CapabilityError(
                f"{self.name} is a sublayer without a weight of its own",
                hint="ask the linear sites inside it",
            )
        if type(self.module) is Conv1D:
            return self.module.weight.detach().T.to(torch.float32)
        if self.kind != "linear" or type(self.module) is nn.Linear:
            return self.module.weight.detach().to(torch.float32)
        return backend_for(self.base.spec.scheme).weight(self.module)

    def add_to_input(self, change: Change) -> Listed:
        self._inputs.append(change)
        if "input" not in self._hooks:
            self._hooks["input"] = self.module.register_forward_pre_hook(
                self._read, with_kwargs=True
            )
        return Listed(self._inputs, change, lambda: self._unhook("input"))

    def add_to_output(self, change: Change) -> Listed:
        self._outputs.append(change)
        if "output" not in self._hooks:
            self._hooks["output"] = self.module.register_forward_hook(
                self._answered, with_kwargs=True
            )
        return Listed(self._outputs, change, lambda: self._unhook("output"))

    def _unhook(self, which: str) -> None:
        hook = self._hooks.pop(which, None)
        if hook is not None:
            hook.remove()

    def _read(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else kwargs["hidden_states"]
        total = x
        for change in self._inputs:
            total = self._sum(total, change(total if self.base.sequential else x))
        if self._outputs and not self.base.sequential:
            self._own_input = x
        if args:
            return (total, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": total}

    def _answered(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        total = output[0] if isinstance(output, tuple) else output
        x = args[0] if args else kwargs["hidden_states"]
        x, y = self._own_pass(x, total)
        for change in self._outputs:
            total = self._sum(total, change(x, total if self.base.sequential else y))
        return (total, *output[1:]) if isinstance(output, tuple) else total

    def _sum(self, values: Any, change: Any) -> Any:
        total = values + change.to(values.dtype)
        if total.shape != values.shape:
            # Three weights for a batch of one would otherwise go on as a batch of three.
            raise UsageError(
                f"a change at {self.name} makes {tuple(total.shape)} of {tuple(values.shape)}",
                hint="give one weight, or as many as the batch has rows",
            )
        return total

    def _own_pass(self, x: Any, y: Any) -> tuple[Any, Any]:
        """What the untouched module reads and answers, given what it has just read and answered."""
        own, self._own_input = self._own_input, None
        if self.base.sequential or self.kind == "attention":
            return (x if own is None else own), y
        if own is None and not self.base.changes_parameters_of(self.module):
            return x, y
        with self.base.own_parameters_of(self.module):
            x = x if own is None else own
            return x, self.module.forward(x)


def find_sites(base: Base) -> dict[SiteKind, dict[str, ModuleSite]]:
    """Every site by kind and name. To be called before an adapter wraps anything."""
    family = FAMILIES.get(base.spec.family)
    sublayers = dict(zip(family.sublayers, ("attention", "mlp"), strict=True)) if family else {}
    linear = linear_sites(base.model)
    found: dict[SiteKind, dict[str, ModuleSite]] = {
        "linear": {}, "norm": {}, "embedding": {}, "attention": {}, "mlp": {}
    }  # fmt: skip
    for name, module in base.model.named_modules():
        kind = _kind(name, module, linear, sublayers)
        if kind is not None:
            found[kind][name] = ModuleSite(name, kind, module, base)
    return found


def _kind(
    name: str, module: Any, linear: Mapping[str, Any], sublayers: Mapping[str, Any]
) -> SiteKind | None:
    from torch import nn

    if name in linear:
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if getattr(module, "weight", None) is not None and "norm" in type(module).__name__.lower():
        return "norm"
    kind: SiteKind | None = sublayers.get(name.rpartition(".")[2])
    return kind
