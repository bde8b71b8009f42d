"""Show an evaluation: scores, differences from the base with bars, and what is only noise.

Measures nothing and decides nothing; draws on the console it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterhub.domain.evaluation import Metric, Row
from adapterhub.evaluate.compare import Difference
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Measure
from adapterhub.evaluate.result import Evaluation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BAR_CELLS = 10
HEADINGS = ("", "score", "against the base", "95% interval", "")


def render(evaluation: Evaluation, console: Console) -> None:
    """One block per task and metric: a table, or one adapter under the other where it is narrow."""
    for index, base in enumerate(evaluation.base_rows):
        own = [r for r in evaluation.rows if (r.task, r.metric) == (base.task, base.metric)]
        if index:
            console.print()
        _block(base, own, console, scheme=evaluation.base.scheme.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """The cells of one row, and the style its difference deserves."""

    name: str
    score: str
    delta: str = ""
    bar: str = ""
    interval: str = ""
    note: str = ""
    style: str = ""


def _block(base: Row, own: Sequence[Row], console: Console, *, scheme: str) -> None:
    from rich.measure import Measurement
    from rich.text import Text

    plain = console.options.ascii_only
    separator = " - " if plain else " · "
    items = f"{base.n} item{'s' * (base.n != 1)}"
    title = separator.join((base.task, items, _meaning(MEASURES[base.metric])))
    console.print(Text(title, style="bold"))
    if base.signature:
        console.print(Text(f"sacrebleu {base.signature}", style="dim"))
    lines = list(_lines(f"base {base.adapter} {scheme}", base, own, plain=plain))
    endless = console.options.update_width(10_000)  # else a table measures as wide as the screen
    for table in (_table(lines), _table(lines, notes_below=True)):
        if Measurement.get(console, endless, table).maximum <= console.width:
            console.print(table)
            return
    for line in lines:
        _stacked(line, console)


def _meaning(measure: Measure) -> str:
    return f"{measure.heading} ({'lower' if measure.lower_is_better else 'higher'} is better)"


def _lines(title: str, base: Row, own: Sequence[Row], *, plain: bool) -> Iterator[_Line]:
    yield _Line(name=title, score=_score(base.score, base.metric))
    longest = max((abs(row.delta or 0.0) for row in own), default=0.0)
    for row in own:
        delta = row.delta or 0.0
        difference = Difference(delta, row.ci95)
        yield _Line(
            name=row.adapter,
            score=_score(row.score, row.metric),
            delta=_signed(delta, row.metric),
            bar=_bar(abs(delta) / longest if longest else 0.0, plain=plain),
            interval=_interval(row, plain=plain),
            note=_note(row, difference),
            style=_style(difference, row.metric),
        )


def _table(lines: Sequence[_Line], *, notes_below: bool = False) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=True, justify="right" if heading == "score" else "left")
    signs = max(len(line.delta) for line in lines)
    for line in lines:
        table.add_row(
            Text(line.name),
            Text(line.score),
            Text(f"{line.delta:<{signs}}  {line.bar}", style=line.style),
            Text(line.interval),
            Text("" if notes_below else line.note, style="dim"),
        )
        if notes_below and line.note:
            table.add_row(Text(f"  {line.note}", style="dim"))
    return table


def _stacked(line: _Line, console: Console) -> None:
    from rich.text import Text

    console.print(Text(line.name, overflow="fold"))
    figures = [Text(f"  {line.score}"), Text(line.delta, style=line.style), Text(line.interval)]
    console.print(Text("  ").join(part for part in figures if part.plain))
    if line.note:
        console.print(Text(f"  {line.note}", style="dim"))


def _note(row: Row, difference: Difference) -> str:
    if row.ci95 is None:
        return "one item gives no interval" if row.n < 2 else "the same difference on every item"
    return "" if difference.separable else "not separable from the base"


def _style(difference: Difference, metric: Metric) -> str:
    if not difference.separable:
        return "dim"
    return "green" if (difference.delta > 0) != MEASURES[metric].lower_is_better else "red"


def _bar(share: float, *, plain: bool) -> str:
    """Whole cells for a share of the longest difference; a small one still shows a mark."""
    cells = round(share * BAR_CELLS)
    if plain:
        return "#" * cells or "|"
    return "▕" * cells or "▏"


def _interval(row: Row, *, plain: bool) -> str:
    if row.ci95 is None:
        return "-" if plain else "–"
    low, high = (_signed(end, row.metric) for end in row.ci95)
    return f"[{low}, {high}]"


def _score(value: float, metric: Metric) -> str:
    measure = MEASURES[metric]
    if measure.shown == "percent":
        return f"{value * 100:.{measure.decimals}f}%"
    return _figure(value, measure, sign="")


def _signed(value: float, metric: Metric) -> str:
    measure = MEASURES[metric]
    return _figure(value * 100 if measure.shown == "percent" else value, measure, sign="+")


def _figure(value: float, measure: Measure, *, sign: str) -> str:
    if abs(value) >= 10_000:
        return f"{value:{sign}.3g}"
    return f"{round(value, measure.decimals) + 0.0:{sign}.{measure.decimals}f}"  # no -0.0
