"""`adapterhub merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.fetching import fetcher
from adapterhub.cli.options import allow_option, base_option, device_option, json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.cli.scaling import asked_scales, scale_option
from adapterhub.errors import DataError, UsageError

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.evaluation import TaskData
    from adapterhub.evaluate.merge_loss import Text
    from adapterhub.evaluate.merging import Outcome
    from adapterhub.runtime.subjects import Subject

_INTO = ("bf16", "fp16", "float32", "nf4")


@click.command(short_help="Write a full model with adapters in its weights.")
@click.argument("ref")
@click.option(
    "--into",
    type=click.Choice(_INTO),
    default="bf16",
    show_default=True,
    help="How the merged weights are stored.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="A folder that plain transformers loads."
)
@click.option("--name", metavar="NAME", help="Keep it as a base under this name (bf16, nf4).")
@click.option("--lossy", is_flag=True, help="Quantize the merged weights, which loses some of it.")
@click.option("--task", metavar="FILE|NAME", help="Perplexity on its rows; default: as trained on.")
@click.option("--text", type=click.Path(path_type=Path), help="Perplexity on this text file.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows of a task.")
@click.option("--no-measure", is_flag=True, help="Do not measure what merging lost.")
@scale_option
@allow_option
@base_option
@device_option
@json_option
def merge(
    *,
    ref: str,
    into: str,
    out: Path | None,
    name: str | None,
    lossy: bool,
    task: str | None,
    text: Path | None,
    limit: int | None,
    no_measure: bool,
    scales: tuple[str, ...],
    allow: tuple[str, ...],
    base_name: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Fold REF, an adapter or a composition such as A+0.5*B, into the weights of its base.

    What is written is loaded again and held against the adapters attached in float32: how far the
    logits of six fixed prompts drift, and perplexity. Only changes of weights can be folded in;
    prompts and bottlenecks stay attached.
    """
    voice = Output(as_json=as_json)
    if into == "nf4" and not lossy:
        raise UsageError(
            "quantizing merged weights rounds them anew, and what an adapter changed is often "
            "smaller than the steps of nf4",
            hint="keep the adapter attached, merge --into bf16, or accept the loss with --lossy: "
            "it is measured",
        )
    if no_measure and (task is not None or text is not None):
        raise UsageError(
            "--no-measure leaves nothing for --task and --text to do", hint="leave one of them out"
        )
    from adapterhub.cli.workbench import choose_base
    from adapterhub.evaluate.merging import Order, merge_model
    from adapterhub.runtime.resolve import resolve_subject

    allowed = frozenset(allow)
    asked = asked_scales(scales, [ref])
    subject = resolve_subject(ref, fetcher(voice), allow=allowed, scales=asked)
    spec = choose_base([subject], base_name, voice, allow=allowed)
    tasks = [] if no_measure else _tasks(subject, task, text, limit, voice)
    order = Order(
        subject=subject,
        base=spec,
        into=into,
        out=out,
        name=name,
        measure=not no_measure,
        tasks=tuple(tasks),
        texts=() if text is None or no_measure else (_text(text),),
        device=device,
        allow=allowed,
    )
    _warn(spec, voice)
    with voice.progress(unit="bytes") as bar:
        line = bar.add_task("merging", total=None)
        made = merge_model(
            order,
            say=voice.say,
            on_tensor=lambda done, total: bar.update(line, completed=done, total=total),
        )
    voice.data(_json(made, order.base, name, into))
    _show(made, name, into, voice)
    voice.next(
        f"adapterhub base show {name}" if name else f"adapterhub base add NAME {made.places[0]}"
    )


def _warn(spec: BaseSpec, out: Output) -> None:
    if spec.scheme.quantized:
        out.say(
            f"note: {spec.name} holds {spec.scheme.name} weights: what is merged is what these "
            "bits stand for, not the weights that they were made from"
        )


def _tasks(
    subject: Subject, task: str | None, text: Path | None, limit: int | None, out: Output
) -> list[TaskData]:
    from adapterhub.evaluate.merge_loss import recorded_tasks
    from adapterhub.evaluate.tasks.load import load_conversations

    if task is not None:
        return [load_conversations(task, limit=limit)]
    found = [] if text is not None else recorded_tasks(subject.members, limit=limit)
    if not found and text is None:
        out.say(
            "note: no task is recorded that it was trained on, so perplexity is not measured: "
            "name one with --task, or a file with --text"
        )
    return found


def _text(path: Path) -> Text:
    from adapterhub.evaluate.merge_loss import Text
    from adapterhub.hub.files import disk

    with disk("read", path):
        data = path.read_bytes()
    try:
        return Text(name=path.name, content=data.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", hint="name a text file") from error


def _json(made: Outcome, base: BaseSpec, name: str | None, into: str) -> dict[str, object]:
    from adapterhub.evaluate.merging import parents_json

    return {
        "folder": str(made.places[0]),
        "name": name,
        "base": base.name,
        "into": into,
        "parents": parents_json(made.manifest),
        "bytes": made.bytes,
        "tensors": made.written.tensors,
        "changed": made.written.changed,
        "untied": made.written.untied,
        "forms": [form.to_json() for form in made.forms],
        "seconds": made.seconds,
    }


def _show(made: Outcome, name: str | None, into: str, out: Output) -> None:
    from adapterhub.evaluate.merge_loss import table_of

    written = made.written
    where = " and ".join(map(str, made.places)) if name is None else name
    out.line(
        f"{where}   {into} · {megabytes(made.bytes)} · {written.changed} of {written.tensors} "
        "tensors changed"
    )
    if written.untied:
        out.say(
            "note: the base's head and embedding are one tensor and only the head changed, so they "
            "are stored apart"
        )
    lines = table_of(made.forms)
    if lines:
        out.table(lines[0], lines[1:])
    for form in made.forms:
        if not form.holds:
            out.say(
                f"note: {form.name}, it does not do what the adapter does: a replay of its probe "
                "would fail"
            )
