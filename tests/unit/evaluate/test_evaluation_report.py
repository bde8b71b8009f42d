"""The table of an evaluation: aligned, honest about noise, readable on any terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.evaluation import Metric, Row
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.evaluate.report import render
from adapterhub.evaluate.result import Evaluation

BASE = BaseSpec(
    name="phi-3-mini",
    id="microsoft/Phi-3-mini-4k-instruct",
    source="hub",
    revision="abc",
    family="phi3",
    modality="causal-lm",
    scheme=scheme_by_name("nf4"),
    fingerprint=Fingerprint(layout="l", sketch="s", content="c"),
    parameters=1,
    stored_bytes=1,
    context_length=1,
)


def row(
    adapter: str,
    score: float,
    delta: float | None = None,
    ci95: tuple[float, float] | None = None,
    metric: Metric = "exact_match",
    *,
    n: int = 50,
) -> Row:
    return Row(
        adapter=adapter,
        task="iso-dates",
        metric=metric,
        score=score,
        stderr=0.01,
        n=n,
        delta=delta,
        ci95=ci95,
    )


def evaluation(*rows: Row, base: tuple[Row, ...] = (row("phi-3-mini", 0.02),)) -> Evaluation:
    return Evaluation(base=BASE, tasks=(), base_rows=base, rows=rows)


GOOD = row("user/en2ko-lora", 0.96, 0.94, (0.85, 1.0))
NOISE = row("acme/formal-ko", 0.04, 0.02, (-0.03, 0.08))
WORSE = row("acme/broken", 0.0, -0.5, (-0.6, -0.4))
WIDE = row("한국어/번역-어댑터", 0.5, 0.48, (0.3, 0.6))


def shown(found: Evaluation, width: int = 110, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n")
    render(found, Console(file=file, width=width, force_terminal=False))
    file.flush()
    return [line.rstrip() for line in raw.getvalue().decode(encoding).splitlines()]


def test_the_title_says_what_was_measured_and_which_way_is_better() -> None:
    title = shown(evaluation(GOOD))[0]
    assert title == "iso-dates · 50 items · exact match, % of items (higher is better)"


def test_a_row_holds_score_difference_bar_and_interval() -> None:
    line = next(line for line in shown(evaluation(GOOD)) if "en2ko" in line)
    assert line.split("  ")[0] == "user/en2ko-lora"
    for part in ("96.0%", "+94.0", "▕" * 10, "[+85.0, +100.0]"):
        assert part in line
    assert "not separable" not in line


def test_the_base_comes_first_with_its_scheme() -> None:
    assert shown(evaluation(GOOD))[2].startswith("base phi-3-mini nf4")


def test_an_interval_that_holds_zero_is_called_noise() -> None:
    lines = shown(evaluation(GOOD, NOISE))
    assert lines[-1].endswith("[-3.0, +8.0]     not separable from the base")
    assert "▏" in lines[-1]


def test_perplexity_is_plain_and_lower_is_better() -> None:
    lines = shown(
        evaluation(
            row("a/b", 1.5, -2.25, (-3.0, -1.5), "perplexity"),
            base=(row("phi-3-mini", 3.75, metric="perplexity"),),
        )
    )
    assert "lower is better" in lines[0]
    assert "3.75" in lines[2]
    assert "-2.25" in lines[3]
    assert "[-3.00, -1.50]" in lines[3]
    assert "%" not in "".join(lines[2:])


@pytest.mark.parametrize(
    ("metric", "values", "cells"),
    [
        ("f1", (0.755, 0.25, (0.1, 0.4)), ("75.5%", "+25.0", "[+10.0, +40.0]")),
        ("bleu", (34.56, 2.25, (1.0, 3.5)), ("34.6", "+2.2", "[+1.0, +3.5]")),
        ("bits_per_byte", (0.8765, -0.01, (-0.0125, -0.0075)), ("0.876", "-0.010", "[-0.013")),
    ],
)
def test_each_metric_is_shown_in_its_own_way(
    metric: Metric, values: tuple[float, float, tuple[float, float]], cells: tuple[str, ...]
) -> None:
    lines = shown(
        evaluation(row("a/b", *values, metric), base=(row("phi-3-mini", 0.1, metric=metric),))
    )
    for cell in cells:
        assert cell in lines[3]


def test_what_a_library_computed_carries_its_signature() -> None:
    base = replace(row("phi-3-mini", 30.0, metric="bleu"), signature="nrefs:1|version:2.6.0")
    lines = shown(evaluation(row("a/b", 34.0, 4.0, (1.0, 7.0), "bleu"), base=(base,)))
    assert lines[0].startswith("iso-dates · 50 items · BLEU, 0 to 100")
    assert lines[1] == "sacrebleu nrefs:1|version:2.6.0"


def test_hopeless_perplexities_stay_short() -> None:
    lines = shown(
        evaluation(
            row("a/b", 5e21, 5e21, (1e21, 6e21), "perplexity"),
            base=(row("phi-3-mini", 3.75, metric="perplexity"),),
        )
    )
    assert "5e+21" in lines[3]


@pytest.mark.parametrize(
    ("one", "style"), [(GOOD, "32"), (WORSE, "31"), (NOISE, "2")], ids=["green", "red", "dim"]
)
def test_a_terminal_sees_better_in_green_worse_in_red_and_noise_dimmed(
    one: Row, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = io.StringIO()
    console = Console(file=file, width=110, force_terminal=True, color_system="standard")
    render(evaluation(one), console)
    delta = f"{(one.delta or 0) * 100:+.1f}"
    assert f"\x1b[{style}m{delta}" in file.getvalue()


def test_no_color_and_dumb_terminals_get_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    render(evaluation(GOOD, NOISE), Console(file=file, width=110))
    assert "\x1b" not in file.getvalue()
    assert "user/en2ko-lora" in file.getvalue()


def test_wide_characters_do_not_push_the_columns() -> None:
    lines = [line for line in shown(evaluation(GOOD, WIDE)) if "[" in line]
    starts = {cell_len(line[: line.index("[")]) for line in lines}
    assert len(starts) == 1


def test_eighty_columns_keep_the_table_and_put_the_note_below() -> None:
    lines = shown(evaluation(GOOD, NOISE), width=80)
    assert lines[1].split() == ["score", "against", "the", "base", "95%", "interval"]
    assert lines[-2].startswith("acme/formal-ko")
    assert lines[-1] == "  not separable from the base"


def test_a_narrow_terminal_gets_one_adapter_under_the_other() -> None:
    long_name = row("user/en2ko-lora*0.8+acme/formal-ko-of-great-length*0.35", 0.9, 0.88, (0.7, 1))
    lines = shown(evaluation(long_name, NOISE, WIDE), width=60)
    assert all(cell_len(line) <= 60 for line in lines)
    text = "\n".join(lines)
    assert "  90.0%  +88.0  [+70.0, +100.0]" in lines
    assert "  not separable from the base" in lines
    assert "한국어/번역-어댑터" in text


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    text = " ".join(" ".join(shown(evaluation(GOOD, NOISE, WIDE), width=width)).split())
    for part in ("96.0%", "+94.0", "not separable from the base"):
        assert part in text


@pytest.mark.parametrize("width", [60, 110])
def test_an_ascii_terminal_gets_ascii(width: int) -> None:
    text = "\n".join(shown(evaluation(GOOD, NOISE), width=width, encoding="ascii"))
    assert "iso-dates - 50 items" in text
    assert ("#" * 10 in text) == (width == 110)


def test_square_brackets_in_a_name_are_no_markup() -> None:
    assert any("a/[red]b" in line for line in shown(evaluation(row("a/[red]b", 1, 1, (0.8, 1)))))


def test_one_item_is_said_to_give_no_interval() -> None:
    lines = shown(
        evaluation(
            row("a/b", 1.5, -1.0, None, "perplexity", n=1),
            base=(row("phi-3-mini", 2.5, metric="perplexity", n=1),),
        )
    )
    assert "1 item ·" in lines[0]
    assert lines[-1].endswith("one item gives no interval")


def test_nothing_is_shown_as_minus_zero() -> None:
    lines = shown(evaluation(row("a/b", 0.02, -0.0001, (-0.0002, 0.0001))))
    assert "-0.0" not in lines[-1]


def test_tasks_and_metrics_each_get_a_block() -> None:
    found = evaluation(
        GOOD,
        row("user/en2ko-lora", 1.1, -1.0, (-1.2, -0.8), "perplexity"),
        base=(row("phi-3-mini", 0.02), row("phi-3-mini", 2.1, metric="perplexity")),
    )
    lines = shown(found)
    assert lines.count("") == 1
    assert sum("iso-dates" in line for line in lines) == 2


def test_importing_the_report_does_not_import_rich() -> None:
    code = "import adapterhub.evaluate.report, sys; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
