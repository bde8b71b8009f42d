"""`adapterhub eval`."""

from __future__ import annotations

import click

from adapterhub.cli.options import allow_option, base_option, device_option, json_option
from adapterhub.cli.output import Output
from adapterhub.cli.workbench import open_workbench, say_what_is_lost


@click.command("eval", short_help="Compare adapters with their base on the same items.")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="FILE|FOLDER|NAME",
    help="JSON lines, a folder with a task.toml, or the name of a task; may be repeated.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many items of each task.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the items.")
@allow_option
@base_option
@device_option
@json_option
def evaluate(
    *,
    refs: tuple[str, ...],
    tasks: tuple[str, ...],
    limit: int | None,
    seed: int,
    allow: tuple[str, ...],
    base_name: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Score the bare base and every REF on the same items, and say what differs for sure.

    Exact match is of generated answers, perplexity of the expected ones; a task may name other
    metrics.
    """
    out = Output(as_json=as_json)
    from adapterhub.evaluate.report import render
    from adapterhub.evaluate.runner import evaluate as evaluate_all
    from adapterhub.evaluate.tasks.load import load_task

    data = [load_task(task, limit=limit, seed=seed) for task in tasks]
    bench = open_workbench(
        refs, base_name=base_name, device=device, out=out, allow=frozenset(allow)
    )
    say_what_is_lost(bench, [item.messages for task in data for item in task.items[:1]], out)
    subjects = [(s.name, slots) for s, slots in zip(bench.subjects, bench.slots, strict=True)]
    with out.progress(unit="items") as bar:
        line = bar.add_task("evaluating", total=None, note="")

        def on_progress(done: int, total: int, what: str) -> None:
            bar.update(line, completed=done, total=total, note=what)

        found = evaluate_all(
            bench.engine,
            subjects,
            data,
            sequential=[s.name for s in bench.subjects if s.sequential],
            on_progress=on_progress,
        )
    out.data(found.to_json())
    if not as_json:
        render(found, out.console)
    out.next(f'adapterhub run {refs[0]} "..." --compare')
