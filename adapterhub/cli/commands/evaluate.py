"""`adapterhub eval`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from adapterhub.cli.options import allow_option, base_option, device_option, json_option
from adapterhub.cli.output import Output
from adapterhub.cli.scaling import scale_option
from adapterhub.cli.workbench import Workbench, open_workbench, say_what_is_lost
from adapterhub.domain.composition import SWITCH
from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from adapterhub.domain.engines import Slots
    from adapterhub.domain.evaluation import TaskData
    from adapterhub.runtime.subjects import Subject

# By subject, task and member: how many items it answered.
Answered = dict[str, dict[str, dict[str, int]]]


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
@scale_option
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
    scales: tuple[str, ...],
    allow: tuple[str, ...],
    base_name: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Score the bare base and every REF on the same items, and say what differs for sure.

    Exact match is of generated answers, perplexity of the expected ones; a task may name other
    metrics. Of adapters put together by switch, each row names the one that answers it:
    {"adapter": NAME, ...}.
    """
    out = Output(as_json=as_json)
    from adapterhub.evaluate.report import render
    from adapterhub.evaluate.runner import evaluate as evaluate_all
    from adapterhub.evaluate.tasks.load import load_task

    data = [load_task(task, limit=limit, seed=seed) for task in tasks]
    bench = open_workbench(
        refs,
        base_name=base_name,
        device=device,
        out=out,
        allow=frozenset(allow),
        scales=scales,
        check=lambda subjects: _check_rows(subjects, data),
    )
    say_what_is_lost(bench, [item.messages for task in data for item in task.items[:1]], out)
    subjects = [(s.title, slots) for s, slots in zip(bench.subjects, bench.slots, strict=True)]
    chosen, answered = _chosen(bench, data, out)
    with out.progress(unit="items") as bar:
        line = bar.add_task("evaluating", total=None, note="")

        def on_progress(done: int, total: int, what: str) -> None:
            bar.update(line, completed=done, total=total, note=what)

        found = evaluate_all(
            bench.engine,
            subjects,
            data,
            sequential=[s.title for s in bench.subjects if s.sequential],
            chosen=chosen,
            on_progress=on_progress,
        )
    out.data({**found.to_json(), **({"answered": answered} if answered else {})})
    if not as_json:
        render(found, out.console)
    out.next(f'adapterhub run {refs[0]} "..." --compare')


def _check_rows(subjects: Sequence[Subject], tasks: Sequence[TaskData]) -> None:
    """Raises UsageError for an item that names no adapter of a subject which needs it."""
    from adapterhub.runtime.answering import named_member

    for subject in subjects:
        for task in tasks if subject.strategy == SWITCH else ():
            for number, item in enumerate(task.items, start=1):
                try:
                    named_member(subject, item.adapter)
                except UsageError as error:
                    raise UsageError(
                        f"item {number} of {task.name}: {error.message}",
                        hint=f'{error.hint}, as "adapter" of each row',
                    ) from error


def _chosen(
    bench: Workbench, tasks: Sequence[TaskData], out: Output
) -> tuple[dict[tuple[str, str], list[Slots]], Answered]:
    """The slots of each item where one adapter answers alone, and who answers how many, which is
    said aloud."""
    from adapterhub.runtime.answering import choose

    chosen: dict[tuple[str, str], list[Slots]] = {}
    answered: Answered = {}
    for subject, own in zip(bench.subjects, bench.slots, strict=True):
        for task in tasks if subject.chooses else ():
            asked = [(item.messages, item.adapter) for item in task.items]
            found = choose(bench.engine, subject, own, asked)
            chosen[subject.title, task.name] = [choice.slots for choice in found]
            counts = Counter(choice.member for choice in found)
            each = {member.ref: counts[member.ref] for member in subject.members}
            answered.setdefault(subject.name, {})[task.name] = each
            told = ", ".join(f"{name} {count}" for name, count in each.items())
            out.say(f"note: {subject.name} on {task.name}, items answered: {told}")
    return chosen, answered
