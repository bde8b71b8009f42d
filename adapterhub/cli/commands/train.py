"""`adapterhub train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from adapterhub.cli.options import device_option, json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.recipe import SCHEDULES, Recipe
from adapterhub.errors import InterruptedRunError, TerminatedRunError, TrainingError, UsageError

if TYPE_CHECKING:
    from adapterhub.train.loop import Step
    from adapterhub.train.run import Trained

# What a recipe file says nothing of.
_BESIDE_A_RECIPE = ("recipe_file", "out", "device", "overwrite", "as_json")
_STOPS = {"interrupted": InterruptedRunError, "terminated": TerminatedRunError}


@click.command(short_help="Train an adapter on a frozen base.")
@click.argument(
    "recipe_file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--base", "base_name", metavar="NAME", help="The base to train on.")
@click.option("--data", metavar="FILE|TASK", help="JSON lines, or the name of a task.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@click.option("--method", default="lora", show_default=True, help="`adapterhub methods`.")
@click.option("--trainer", default="sft", show_default=True, help="What is minimised.")
@click.option("--rank", type=int, default=8, show_default=True, help="The size of the adapter.")
@click.option("--alpha", type=float, help="Default: twice the rank.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="Of its input.")
@click.option(
    "--targets", default="all-linear", show_default=True, help="Also attention, mlp or names."
)
@click.option("--steps", type=int, default=100, show_default=True, help="Optimizer steps.")
@click.option("--batch-size", type=int, default=8, show_default=True, help="Rows a step.")
@click.option("--accumulate", type=int, default=1, show_default=True, help="Parts of a batch.")
@click.option(
    "--lr", type=float, default=1e-3, show_default=True, help="The highest learning rate."
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default="cosine",
    show_default=True,
    help="Of the rate.",
)
@click.option("--max-length", type=int, default=2048, show_default=True, help="Tokens in a row.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and order.")
@click.option("--overwrite", is_flag=True, help="Replace the folder once the new one is whole.")
@device_option
@json_option
def train(
    recipe_file: Path | None,
    base_name: str | None,
    data: str | None,
    out: Path,
    device: str | None,
    *,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train an adapter on the answers of --data and write it to the folder OUT.

    Rows are {"messages": [...]}, the last one the answer, or {"prompt": ..., "completion": ...}.
    A RECIPE_FILE, as each run writes one, repeats that run and takes the place of the options.
    Ctrl-C keeps the adapter as of its last step.
    """
    say = Output(as_json=as_json)
    recipe = _recipe(recipe_file, base_name, data, settings)
    from adapterhub.train.run import train_adapter

    with say.progress(unit="steps") as bar:
        line = bar.add_task("training", total=recipe.steps, note="")

        def on_step(step: Step) -> None:
            rate = step.tokens / step.seconds
            note = f"loss {step.loss:.3f} · {rate:.0f} tok/s"
            bar.update(line, completed=step.number, note=note)

        trained = train_adapter(
            recipe, out, device=device, overwrite=overwrite, on_step=on_step, say=say.say
        )
    say.data(_json(trained))
    _show(trained, say)
    _stopped_early(trained)
    say.next(f"adapterhub push {out} USER/{out.name}")


def _recipe(
    file: Path | None, base: str | None, data: str | None, settings: dict[str, Any]
) -> Recipe:
    if file is not None:
        _refuse_options_beside(file)
        from adapterhub.formats.recipe_file import decode_recipe
        from adapterhub.hub.files import disk

        with disk("read", file):
            return decode_recipe(file.read_bytes(), name=file.name)
    if base is None or data is None:
        missing = "--base" if base is None else "--data"
        raise UsageError(
            f"training needs {missing}",
            hint="adapterhub train --base NAME --data FILE.jsonl -o DIR",
        )
    options = {key: settings.pop(key) for key in ("rank", "alpha", "dropout", "targets")}
    return Recipe(
        base=base,
        data=data,
        options={key: value for key, value in options.items() if value is not None},
        learning_rate=settings.pop("lr"),
        **settings,
    )


def _refuse_options_beside(file: Path) -> None:
    """A recipe holds every setting, so an option given with it would be dropped in silence."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _BESIDE_A_RECIPE:
            raise UsageError(
                f"{parameter.opts[0]} does not go with {file}, which says it already",
                hint=f"change it in {file}, or give options alone",
            )


def _json(trained: Trained) -> dict[str, Any]:
    steps = trained.outcome.steps
    return {
        "folder": str(trained.folder),
        "parameters": trained.parameters,
        "steps": len(steps),
        "stopped": trained.outcome.stopped,
        "loss": [step.loss for step in steps],
        "tokens": steps[-1].tokens if steps else 0,
        "seconds": steps[-1].seconds if steps else 0.0,
        "data_sha256": trained.manifest.data_sha256,
    }


def _show(trained: Trained, out: Output) -> None:
    steps = trained.outcome.steps
    last = steps[-1]
    size = sum(file.stat().st_size for file in trained.folder.iterdir())
    out.line(
        f"{trained.folder}   {trained.manifest.method} · {trained.parameters:,} parameters · "
        f"{megabytes(size)}"
    )
    out.line(
        f"  loss     {steps[0].loss:.3f} -> {last.loss:.3f} in {len(steps)} steps, "
        f"{last.seconds:.0f} s, {last.tokens / last.seconds:.0f} tok/s · {trained.folder}/loss.png"
    )


def _stopped_early(trained: Trained) -> None:
    """What was good is on disk by now; the exit code still says that the run is not finished."""
    done = len(trained.outcome.steps)
    if trained.outcome.stopped == "diverged":
        raise TrainingError(
            f"the loss stopped being finite; {trained.folder} holds the adapter of step {done}, "
            "the last with a finite loss after it",
            hint="lower --lr",
        )
    kind = _STOPS.get(trained.outcome.stopped)
    if kind is not None:
        raise kind(
            f"{trained.outcome.stopped} after {done} steps; {trained.folder} holds the adapter "
            "as of then",
            hint="run the same command with --overwrite to train it to the end",
        )
