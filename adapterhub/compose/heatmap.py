"""Where in a base two adapters meet, as a picture: layers by kinds of modules."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from adapterhub.compose.pairs import PairFigures, pair_of, place_of
from adapterhub.compose.report import ModuleRelation

_OUTSIDE = "-"  # the row of modules that belong to no layer


def picture(found: Sequence[ModuleRelation], pair: PairFigures, names: tuple[str, str]) -> bytes:
    """A PNG: on the left the overlap of what two adapters write and read (mean of both sides), on
    the right the cosine of their deltas; grey where one of them changes nothing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = _cells(found, pair)
    rows = sorted({row for row, _ in cells}, key=lambda row: (row == _OUTSIDE, row.zfill(6)))
    kinds = sorted({kind for _, kind in cells})
    size = (min(24.0, 5.0 + 1.0 * len(kinds)), min(24.0, 2.8 + 0.24 * len(rows)))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    overlaps = {place: (item.written + item.read) / 2 for place, item in cells.items()}
    cosines = {place: item.cosine for place, item in cells.items()}
    # Small cosines are the rule, and would all look white on a scale up to 1.
    widest = max(0.1, *(abs(cosine) for cosine in cosines.values()))
    _draw(left, overlaps, rows, kinds, title="overlap (0 to 1)", limits=(0, 1), colors="viridis")
    _draw(right, cosines, rows, kinds, title="cosine", limits=(-widest, widest), colors="RdBu_r")
    left.set_ylabel("layer")
    title = f"{_plain(names[0])}   and   {_plain(names[1])}"
    figure.suptitle(title, fontsize="medium", parse_math=False)
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


def _cells(
    found: Sequence[ModuleRelation], pair: PairFigures
) -> dict[tuple[str, str], PairFigures]:
    """What both change, by layer and kind."""
    cells = {}
    for module in found:
        figures = pair_of([module], pair.one, pair.other)
        layer, kind = place_of(module.module)
        if figures is not None:
            cells[_OUTSIDE if layer is None else str(layer), kind] = figures
    return cells


def _draw(
    axes: Any,
    cells: dict[tuple[str, str], float],
    rows: list[str],
    kinds: list[str],
    *,
    title: str,
    limits: tuple[float, float],
    colors: str,
) -> None:
    nothing = float("nan")
    grid = [[cells.get((row, kind), nothing) for kind in kinds] for row in rows]
    axes.set_facecolor("0.85")
    drawn = axes.imshow(grid, cmap=colors, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(
        range(len(kinds)), [_plain(kind) for kind in kinds], rotation=45, ha="right",
        fontsize="small", parse_math=False,
    )  # fmt: skip
    step = max(1, len(rows) // 32)
    axes.set_yticks(range(0, len(rows), step), rows[::step], fontsize="small")
    axes.set_title(title, fontsize="medium")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)


def _plain(name: str) -> str:
    """In letters that every font has: others chose the names."""
    shown = name.encode("ascii", "backslashreplace").decode()
    return shown if len(shown) <= 40 else f"{shown[:39]}~"
