"""The same weights in two layouts: one fused layer, or its parts as layers of their own.

Knows names and numbers of rows. A fused layer's rows are those of its parts, one after another, as
in Phi-3's qkv_proj beside Llama's q_proj, k_proj and v_proj.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adapterhub.domain.targets import FAMILIES

Layout = Literal["fused", "split"]
LAYOUTS: tuple[Layout, ...] = ("fused", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """How many attention heads ask, and how many groups of keys and values answer them."""

    queries: int
    groups: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """A fused layer's leaf name, and those of its parts in the order of their rows."""

    fused: str
    parts: tuple[str, ...]


def joints() -> tuple[Joint, ...]:
    """Every fused layer whose parts are layers in another family; GPT-2's are layers nowhere."""
    layers = {leaf for family in FAMILIES.values() for leaf in family.linear}
    return tuple(
        Joint(fused=fused, parts=parts)
        for family in FAMILIES.values()
        for fused, parts in family.fused
        if layers.issuperset(parts)
    )


def layout_of(family: str) -> Layout:
    """Which of the two a family's bases have."""
    table = FAMILIES.get(family)
    fused = {joint.fused for joint in joints()}
    return "fused" if table and fused.intersection(table.linear) else "split"


def section_rows(out: int, parts: int, heads: Heads) -> list[int]:
    """How many of a fused layer's rows each part has: grouped queries have fewer keys."""
    if parts != 3:
        return [out // parts] * parts
    keys = out * heads.groups // (heads.queries + 2 * heads.groups)
    return [out - 2 * keys, keys, keys]


def completed(rows: Sequence[int | None], heads: Heads | None, hidden: int | None) -> list[int]:
    """The rows of every part, where some are known; `hidden` is the width of the queries, if the
    family makes them as wide as the hidden state. Raises LookupError where that does not suffice.
    """
    if len(rows) == 2:
        known = next((row for row in rows if row is not None), None)
        return [_known(known)] * 2
    queries, keys = rows[0], rows[1] if rows[1] is not None else rows[2]
    if heads:
        if queries is None and keys is not None:
            queries = keys * heads.queries // heads.groups
        if keys is None and queries is not None:
            keys = queries * heads.groups // heads.queries
    return [_known(queries if queries is not None else hidden), _known(keys), _known(keys)]


def _known(rows: int | None) -> int:
    if rows is None:
        raise LookupError("the rows of one part do not tell those of the others")
    return rows
