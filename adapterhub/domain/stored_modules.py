"""Which modules a file's tensors belong to, and whether those are the ones a config names.

Reads names and shapes; without a base it can tell what is missing, and not how wide a layer is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from adapterhub.domain.targets import FAMILIES
from adapterhub.errors import MismatchError

_HINT = "the file was cut or its config edited; pull it again or ask its author"


def stored_modules(
    method: str, tensors: Mapping[str, Any], parts: Collection[str], *, prefix: str = ""
) -> dict[str, dict[str, Any]]:
    """Module -> part -> tensor, for tensors called `<prefix><module>.<part>`.

    Raises MismatchError for a tensor that is none of the parts, and for no tensors at all.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, tensor in sorted(tensors.items()):
        part = next((part for part in parts if name.endswith(f".{part}")), None)
        if part is None or not name.startswith(prefix):
            raise MismatchError(
                f"the tensor {name!r} is no part of {method}",
                hint=f"one has {', '.join(parts)}; save it again",
            )
        found.setdefault(name[len(prefix) : -len(part) - 1], {})[part] = tensor
    if not found:
        raise MismatchError(f"the file of this {method} adapter holds no tensors", hint=_HINT)
    return found


def check_parts(modules: Mapping[str, Mapping[str, Any]], parts: Collection[str]) -> None:
    """Raises MismatchError for a module that lacks a part."""
    for module, found in modules.items():
        missing = next((part for part in parts if part not in found), None)
        if missing:
            raise MismatchError(f"{module} has no {missing}", hint=_HINT)


def check_targets(modules: Iterable[str], targets: Collection[str]) -> None:
    """Raises MismatchError for a module that no target names, by its end, and for a target that
    names none."""
    names = list(modules)
    for name in names:
        if not is_named(name, targets):
            raise MismatchError(
                f"the file has tensors for {name}, which its config does not name", hint=_HINT
            )
    for target in targets:
        if not any(is_named(name, [target]) for name in names):
            raise MismatchError(
                f"the file has no tensors for {target!r}, which its config names", hint=_HINT
            )


def check_blocks(
    modules: Iterable[str], *, family: str | None, layers: Collection[int] | None = None
) -> None:
    """Raises MismatchError for a block that lacks a module which another has, or is not there.

    `layers` are the blocks that the config names, None for all of them. Blocks of a family that is
    not known may differ, so nothing is said of them.
    """
    if family not in FAMILIES:
        return
    kinds: dict[str, set[int]] = {}
    for name in modules:
        kind, block = _kind(name)
        if block is not None:
            kinds.setdefault(kind, set()).add(block)
    there = {block for blocks in kinds.values() for block in blocks}
    wanted = set(range(max(there, default=-1) + 1)) if layers is None else set(layers)
    for kind, blocks in kinds.items():
        odd = sorted(wanted ^ blocks)
        if odd:
            fact = "has no tensors" if odd[0] in wanted else "has tensors that no config asks for,"
            raise MismatchError(f"the file {fact} for {kind.format(odd[0])}", hint=_HINT)


def is_named(name: str, targets: Iterable[str]) -> bool:
    """PEFT's rule: a target is the whole name of a module, or its end behind a dot."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _kind(name: str) -> tuple[str, int | None]:
    """`model.layers.{}.mlp` and the number of the block; None outside of them."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isascii() and part.isdigit()), None)
    if at is None:
        return name, None
    return ".".join([*parts[:at], "{}", *parts[at + 1 :]]), int(parts[at])
