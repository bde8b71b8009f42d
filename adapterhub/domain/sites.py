"""Places in a loaded base that a method may touch, whatever class holds their weights.

A method that works on sites works on every family and every quantization backend, and beside any
other method on the same base: its changes are hooks, so that nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

SiteKind = Literal["linear", "norm", "embedding", "attention", "mlp"]
SITE_KINDS: tuple[SiteKind, ...] = ("linear", "norm", "embedding", "attention", "mlp")


class Handle(Protocol):
    """A change that is in place until it is removed."""

    def remove(self) -> None: ...


class Site(Protocol):
    """One module of a loaded base. `linear`, `norm` and `embedding` hold weights; `attention` and
    `mlp` are the two sublayers of a block, from hidden states to what is added to them.

    `name` is the one PEFT stores it by. `module` is the base's own, even where an adapter wraps it,
    so a change made here is a change of what the base itself computes there.
    """

    name: str
    kind: SiteKind
    module: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) of a linear layer, (tokens, width) of an embedding, (width,) of a norm,
        (hidden, hidden) of a sublayer."""

    @property
    def sections(self) -> Mapping[str, tuple[int, int]]:
        """Rows [first, end) of each part of a fused linear layer, such as k_proj in qkv_proj;
        empty where nothing is fused."""

    def weight(self) -> Any:
        """The values that the stored bytes stand for, in float32: (out, in) for a linear layer,
        however it keeps them. Raises CapabilityError for a sublayer, which has none of its own."""

    def add_to_input(self, change: Callable[[Any], Any]) -> Handle:
        """From now on the module reads x + change(x) where it would have read x (..., in)."""

    def add_to_output(self, change: Callable[[Any, Any], Any]) -> Handle:
        """From now on the module answers y + change(x, y) where it would have answered y (..., out)
        for x. Each of several changes is given the base's own y, so that their order means nothing;
        while the base's `sequential` is set, each is given what the changes before it have made."""
