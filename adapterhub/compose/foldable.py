"""Decide whether adapters can become part of a base's own weights.

Looks at patches and how they are put together; reads no tensor and no method's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adapterhub.domain.composition import LINEAR, SEQUENTIAL
from adapterhub.domain.patch import Affine, Patch, Weights
from adapterhub.errors import CapabilityError


def check_sum(name: str, *, strategy: str, members: int) -> None:
    """Raises CapabilityError for a composition whose effect is no sum of its members' own."""
    if members == 1 or strategy == LINEAR:
        return
    if strategy == SEQUENTIAL:
        raise CapabilityError(
            f"{name} is a sequence: what feeds the next adapter is no sum of changes of weights",
            hint="keep it attached, which is how run and eval have it",
        )
    raise CapabilityError(
        f"{name} is combined by {strategy}, which exists as one merged adapter alone",
        hint=f"write that first, then merge it: adapterhub stack {name} -o DIR",
    )


def foldable(ref: str, patches: Iterable[tuple[str, Patch]]) -> Iterator[tuple[str, Patch]]:
    """The patches, each as it comes. Raises CapabilityError at one that is no change of weights."""
    for module, patch in patches:
        if not isinstance(patch, Affine | Weights):
            kind = type(patch).__name__.lower()
            where = f"a {kind} beside {module}" if module else f"a {kind} before the input"
            raise CapabilityError(
                f"{ref} has {where}, which is no change of weights",
                hint="keep it attached, which is how run and eval have it; it cannot be merged",
            )
        yield module, patch
