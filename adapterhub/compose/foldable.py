"""Decide whether adapters can become part of a base's own weights.

Looks at what methods declare, at patches and at how adapters are put together; reads no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adapterhub.domain.composition import CHOOSING, LINEAR, NEVER_MERGED, SEQUENTIAL
from adapterhub.domain.method import Capability, Method
from adapterhub.domain.patch import Affine, Patch, Weights
from adapterhub.errors import CapabilityError

_ATTACH = "keep it attached, which is how run and eval have it; it cannot be merged"


def check_sum(name: str, *, strategy: str, members: int) -> None:
    """Raises CapabilityError for a composition whose effect is no sum of its members' own."""
    if members == 1 or strategy == LINEAR:
        return
    if strategy == SEQUENTIAL:
        raise CapabilityError(
            f"{name} is a sequence: what feeds the next adapter is no sum of changes of weights",
            hint=_ATTACH,
        )
    if strategy in CHOOSING:
        raise CapabilityError(
            f"{name} is no sum of its members: {NEVER_MERGED[strategy]}",
            hint="merge one of them by its own name, or keep them attached",
        )
    raise CapabilityError(
        f"{name} is combined by {strategy}, which exists as one merged adapter alone",
        hint=f"write that first, then merge it: adapterhub stack {name} -o DIR",
    )


def check_declared(ref: str, method: Method) -> None:
    """Raises CapabilityError for an adapter whose method does not declare `merge`."""
    if Capability.MERGE not in method.capabilities:
        raise CapabilityError(
            f"{ref} is a {method.name} adapter, and what {method.name} does is no change of "
            "weights",
            hint=_ATTACH,
        )


def foldable(ref: str, patches: Iterable[tuple[str, Patch]]) -> Iterator[tuple[str, Patch]]:
    """The patches, each as it comes. Raises CapabilityError at one that is no change of weights."""
    for module, patch in patches:
        if not isinstance(patch, Affine | Weights):
            kind = type(patch).__name__.lower()
            where = f"a {kind} beside {module}" if module else f"a {kind} before the input"
            raise CapabilityError(
                f"{ref} has {where}, which is no change of weights",
                hint=_ATTACH,
            )
        yield module, patch
