"""Decide which layers of an adapter are split or fused, and where the rows of each part are.

Sees names and shapes only; what a method stores for a layer is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapterhub.domain.layouts import Heads, Joint, Layout, completed, joints, section_rows
from adapterhub.errors import MismatchError, UsageError

# (out, in) of a layer; None where what is stored does not tell.
Shape = tuple[int, int | None]


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
    make = _joined if layout == "fused" else _divided
    steps = [
        step
        for joint in joints()
        for step in make(joint, modules, heads=heads, wide_queries=wide_queries)
    ]
    return LayoutPlan(
        layout=layout,
        steps=tuple(sorted(steps, key=lambda step: step.fused)),
        kept=tuple(sorted(set(modules).difference(fused, split))),
    )


def names_in(layout: Layout, names: Iterable[str]) -> list[str]:
    """The names of layers that exist in this layout alone, in order."""
    leaves = {
        leaf
        for joint in joints()
        for leaf in ((joint.fused,) if layout == "fused" else joint.parts)
    }
    return sorted(name for name in names if name.rpartition(".")[2] in leaves)


def _divided(
    joint: Joint, modules: Mapping[str, Shape], *, heads: Heads | None, wide_queries: bool
) -> list[Step]:
    steps = []
    for name, (out, width) in modules.items():
        parent, _, leaf = name.rpartition(".")
        if leaf != joint.fused:
            continue
        if len(joint.parts) == 2 or heads:
            # Two parts are halves, whatever the heads.
            rows = section_rows(out, len(joint.parts), heads or Heads(queries=1, groups=1))
        elif wide_queries and width is not None:
            rows = [width, (out - width) // 2, (out - width) // 2]
        else:
            raise _unknown(name, out)
        _check(name, out, rows, heads)
        steps.append(_step(parent, joint, rows))
    return steps


def _joined(
    joint: Joint, modules: Mapping[str, Shape], *, heads: Heads | None, wide_queries: bool
) -> list[Step]:
    steps = []
    for parent in {n.rpartition(".")[0] for n in modules if n.rpartition(".")[2] in joint.parts}:
        shapes = [modules.get(_under(parent, part)) for part in joint.parts]
        outs = [None if shape is None else shape[0] for shape in shapes]
        widths = {shape[1] for shape in shapes if shape and shape[1] is not None}
        name = _under(parent, joint.fused)
        if len(widths) > 1:
            raise MismatchError(
                f"the parts of {name} read inputs of {' and '.join(sorted(map(str, widths)))}",
                hint="the adapter belongs to no base whose layers could be fused",
            )
        try:
            rows = completed(outs, heads, widths.pop() if wide_queries and widths else None)
        except LookupError as error:
            raise _unknown(name, None) from error
        for part, own, wanted in zip(joint.parts, outs, rows, strict=True):
            if own not in (None, wanted):
                raise _mismatch(_under(parent, part), own, wanted)
        _check(name, sum(rows), rows, heads)
        steps.append(_step(parent, joint, rows))
    return steps


def _step(parent: str, joint: Joint, rows: list[int]) -> Step:
    sections, first = [], 0
    for part, count in zip(joint.parts, rows, strict=True):
        sections.append(Section(module=_under(parent, part), first=first, end=first + count))
        first += count
    return Step(fused=_under(parent, joint.fused), sections=tuple(sections))


def _check(name: str, out: int, rows: list[int], heads: Heads | None) -> None:
    if sum(rows) != out or min(rows) < 1:
        raise _mismatch(name, out, sum(rows))
    if len(rows) == 3 and heads and rows[0] * heads.groups != rows[1] * heads.queries:
        raise MismatchError(
            f"{name} has {out} rows, which {heads.queries} heads of queries and {heads.groups} of "
            "keys do not divide",
            hint="the adapter was made for another base; `adapterhub show` names it",
        )


def _under(parent: str, leaf: str) -> str:
    return f"{parent}.{leaf}" if parent else leaf


def _mismatch(name: str, own: int | None, wanted: int) -> MismatchError:
    return MismatchError(
        f"{name} has {own} rows and should have {wanted}",
        hint="the adapter was made for another base; `adapterhub show` names it",
    )


def _unknown(name: str, out: int | None) -> UsageError:
    rows = f"{out} rows" if out else "rows"
    return UsageError(
        f"which {rows} of {name} are queries, keys and values is the base's business",
        hint="name one with these heads: --base NAME; or --family phi3, if it is one of Phi-3",
    )
