"""`adapterhub extract`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.options import centroid_option, device_option, json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.cli.proving import prompts_of, record_effect
from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from adapterhub.train.extract import Extracted, Held

_WORST = 8


@click.command(short_help="Turn a fine-tuned model into a LoRA.")
@click.argument("base")
@click.argument("tuned")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The adapter's folder."
)
@click.option("--rank", type=int, default=16, show_default=True, help="The size of the adapter.")
@click.option(
    "--targets", default="all-linear", show_default=True, help="Also attention, mlp or names."
)
@click.option("--overwrite", is_flag=True, help="Replace the adapter that is there.")
@centroid_option
@device_option
@json_option
def extract(
    *,
    base: str,
    tuned: str,
    out: Path,
    rank: int,
    targets: str,
    centroid: str | None,
    overwrite: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Write what TUNED changed of BASE to the folder OUT, as a LoRA.

    Each is a folder, a GGUF file or a hub id; BASE may be the name of a base on this machine too.
    Every layer's difference is cut to the rank given, and how much of it is lost is said. On a base
    that is named, what the LoRA does is recorded, as after a training.
    """
    say = Output(as_json=as_json)
    from adapterhub.models.bases import list_bases
    from adapterhub.models.loader import best_device, check_device
    from adapterhub.models.quiet import quiet
    from adapterhub.train.extract import extract as extract_adapter

    # A base that is here under this name can be asked; another would have to be added first.
    spec = next((spec for spec in list_bases() if spec.name == base), None)
    if centroid is not None and spec is None:
        raise UsageError(
            f"a centroid is taken on a base that is here, and {base} is not the name of one",
            hint=f"add it first: adapterhub base add NAME {base}",
        )
    prompts = prompts_of(centroid)
    device = device or best_device()
    check_device(device)
    with say.progress(unit="tensors") as bar, quiet():
        line = bar.add_task("comparing", total=1, note="")
        made = extract_adapter(
            base,
            tuned,
            out,
            rank=rank,
            targets=targets,
            overwrite=overwrite,
            device=device,
            on_tensor=lambda done, total: bar.update(line, completed=done, total=total),
            say=say.say,
        )
    if spec is not None:
        record_effect(made.folder, spec, say, device=device, prompts=prompts)
    say.data(_json(made))
    _show(made, say)
    say.next(f"adapterhub verify {made.folder}")


def _json(made: Extracted) -> dict[str, object]:
    return {
        "folder": str(made.folder),
        "base": {"id": made.base.id, "revision": made.base.revision},
        "error": made.error,
        "modules": [asdict(held) for held in made.held],
        "left_out": [asdict(left) for left in made.left_out],
        "unchanged": made.unchanged,
    }


def _show(made: Extracted, out: Output) -> None:
    size = sum(file.stat().st_size for file in made.folder.iterdir())
    out.line(
        f"{made.folder}   {len(made.held)} layers, rank {_ranks(made.held)} · {megabytes(size)} · "
        f"relative error {made.error:.2g}"
    )
    worst = sorted(made.held, key=lambda held: held.error, reverse=True)[:_WORST]
    out.table(
        ("layers furthest from the tuned model", "rank", "change", "error"),
        [(held.module, f"{held.rank}", _part(held.change), f"{held.error:.2g}") for held in worst],
    )
    if made.unchanged:
        out.line(f"{made.unchanged} layers do not differ and were left out")
    if made.left_out:
        out.say("note: these differ and are not in the adapter:")
        largest = sorted(made.left_out, key=lambda left: left.change or 0, reverse=True)
        for left in largest[:_WORST]:
            out.say(f"note:   {left.parameter}, by {_part(left.change)}")
        if len(largest) > _WORST:
            out.say(f"note:   and {len(largest) - _WORST} more, which --json lists")


def _ranks(held: tuple[Held, ...]) -> str:
    ranks = {layer.rank for layer in held}
    return f"{min(ranks)}" if len(ranks) == 1 else f"{min(ranks)} to {max(ranks)}"


def _part(change: float | None) -> str:
    return "from zero" if change is None else f"{change:.2%}"
