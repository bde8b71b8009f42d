"""Decide which layers of an adapter are split or fused, and where the rows of each part are.

Sees names and shapes only; what a method stores for a layer is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapterhub.domain.layout import (
    Heads,
    Layout,
    names_in,
    parts_of,
    section_rows,
    whole_of,
)
from adapterhub.errors import MismatchError, UsageError

# (out, in) of a layer; None where what is stored does not tell.
Shape = tuple[int, int | None]
_OTHER = "the adapter was made for another base; `adapterhub show` names it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Rows [first, end) of a fused layer, and the layer that they are in the split layout."""

    module: str
    first: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One fused layer and all its parts, of which the adapter may have some alone."""

    fused: str
    sections: tuple[Section, ...]

    @property
    def rows(self) -> int:
        return self.sections[-1].end


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutPlan:
    """`kept` are the layers that both layouts have."""

    layout: Layout
    steps: tuple[Step, ...]
    kept: tuple[str, ...]


def plan_layout(
    modules: Mapping[str, Shape], layout: Layout, *, heads: Heads | None, wide_queries: bool
) -> LayoutPlan:
    """`modules` are those that an adapter changes. `heads` are the base's, if they are known;
    `wide_queries` says that its queries are as wide as its hidden state, which then tells as much.

    Raises UsageError where the sizes of the parts cannot be told, or all is in this layout already;
    MismatchError for an adapter with fused layers beside split ones, or not of the base's sizes.
    """
    fused, split = names_in("fused", modules), names_in("split", modules)
    if fused and split:
        raise MismatchError(
            f"it changes the fused layer {fused[0]} and the split one {split[0]}",
            hint="no base has both; ask its author which one it is for",
        )
    if fused + split and not (split if layout == "fused" else fused):
        raise UsageError(
            f"its layers are {layout} already: {(fused + split)[0]}", hint="use it as it is"
        )
    rows_of = _joined if layout == "fused" else _divided
    wholes = sorted({whole_of(name) for name in split} if layout == "fused" else fused)
    rows = {name: rows_of(name, modules, heads=heads, wide_queries=wide_queries) for name in wholes}
    return LayoutPlan(
        layout=layout,
        steps=tuple(_step(name, rows[name]) for name in wholes),
        kept=tuple(sorted(set(modules).difference(fused, split))),
    )


def _divided(
    name: str, modules: Mapping[str, Shape], *, heads: Heads | None, wide_queries: bool
) -> Sequence[int]:
    out, width = modules[name]
    count = len(parts_of(name))
    if count == 2 or heads:
        rows = section_rows(out, count, heads)
    elif wide_queries and width is not None:
        keys, odd = divmod(out - width, 2)
        rows = None if odd or keys < 1 else (width, keys, keys)
    else:
        raise _unknown(name, f"{out} rows")
    if rows is None:
        raise _uneven(name, out, heads)
    return rows


def _joined(
    name: str, modules: Mapping[str, Shape], *, heads: Heads | None, wide_queries: bool
) -> Sequence[int]:
    parts = parts_of(name)
    shapes = [modules.get(part) for part in parts]
    outs = [None if shape is None else shape[0] for shape in shapes]
    widths = {shape[1] for shape in shapes if shape and shape[1] is not None}
    if len(widths) > 1:
        raise MismatchError(
            f"the parts of {name} read inputs of {' and '.join(sorted(map(str, widths)))}",
            hint="the adapter belongs to no base whose layers could be fused",
        )
    rows = _completed(outs, heads, widths.pop() if wide_queries and widths else None)
    if rows is None:
        raise _unknown(name, "rows")
    for part, own, wanted in zip(parts, outs, rows, strict=True):
        if own not in (None, wanted):
            raise MismatchError(f"{part} has {own} rows and should have {wanted}", hint=_OTHER)
    if heads and section_rows(sum(rows), len(rows), heads) != tuple(rows):
        raise _uneven(name, sum(rows), heads)
    return rows


def _completed(
    outs: Sequence[int | None], heads: Heads | None, hidden: int | None
) -> list[int] | None:
    """The rows of every part, where some are known; `hidden` is the width of the queries, if the
    family makes them as wide as the hidden state. None where that does not suffice."""
    if len(outs) == 2:
        queries = keys = outs[0] if outs[0] is not None else outs[1]
    else:
        queries, keys = outs[0], outs[1] if outs[1] is not None else outs[2]
        if heads and queries is None and keys is not None:
            queries = keys * heads.queries // heads.groups
        if heads and keys is None and queries is not None:
            keys = queries * heads.groups // heads.queries
        queries = hidden if queries is None else queries
    if queries is None or keys is None:
        return None
    return [queries, *[keys] * (len(outs) - 1)]


def _step(name: str, rows: Sequence[int]) -> Step:
    sections, first = [], 0
    for part, count in zip(parts_of(name), rows, strict=True):
        sections.append(Section(module=part, first=first, end=first + count))
        first += count
    return Step(fused=name, sections=tuple(sections))


def _uneven(name: str, out: int, heads: Heads | None) -> MismatchError:
    parts = " and ".join(part.rpartition(".")[2] for part in parts_of(name))
    reason = f"which do not divide into {parts}"
    if heads and len(parts_of(name)) == 3:
        reason = f"which {heads.queries} heads of queries and {heads.groups} of keys do not divide"
    return MismatchError(f"{name} has {out} rows, {reason}", hint=_OTHER)


def _unknown(name: str, rows: str) -> UsageError:
    return UsageError(
        f"which {rows} of {name} are queries, keys and values is the base's business",
        hint="name one with these heads: --base NAME; or --family phi3, if it is one of Phi-3",
    )
