"""`adapterhub train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.options import allow_option, device_option, json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.cli.rate_search import RateFound, leave_beside, search_rate
from adapterhub.cli.train_options import (
    on_the_line,
    recipe_in,
    recipe_of,
    recipe_options,
    refuse_beside,
)
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from adapterhub.train.loop import Outcome, Step
    from adapterhub.train.run import Trained

# What a recipe file says nothing of.
_BESIDE_A_RECIPE = (
    "recipe_file", "out", "device", "overwrite", "restart", "find_lr", "find_lr_only", "log",
    "golden", "allow", "as_json",
)  # fmt: skip
_LOGS = ("tensorboard", "trackio")


@click.command(short_help="Train an adapter on a frozen base.")
@click.argument(
    "recipe_file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@recipe_options
@click.option("--overwrite", is_flag=True, help="Replace the folder once the new one is whole.")
@click.option("--restart", is_flag=True, help="Begin anew, whatever a stopped run has left.")
@click.option("--find-lr", is_flag=True, help="Find the rate first, by many short runs.")
@click.option("--find-lr-only", is_flag=True, help="Find the rate, and train nothing with it.")
@click.option(
    "--golden",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show N of its answers, to rows it was not trained on.",
)
@click.option("--log", type=click.Choice(_LOGS), help="Where each step's figures go as well.")
@allow_option
@device_option
@json_option
def train(
    recipe_file: Path | None,
    out: Path,
    device: str | None,
    log: str | None,
    golden: int | None,
    *,
    allow: tuple[str, ...],
    overwrite: bool,
    restart: bool,
    find_lr: bool,
    find_lr_only: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train an adapter on the answers of --data and write it to the folder OUT.

    Rows are {"messages": [...]}, the last one the answer, or {"prompt": ..., "completion": ...}.
    A RECIPE_FILE, as each run writes one, repeats that run and takes the place of the options.
    A run that is stopped keeps a checkpoint beside OUT, and the same command goes on from there.
    """
    say = Output(as_json=as_json)
    recipe = _recipe(recipe_file, settings, say)
    if log is not None:
        from adapterhub.train.log import check_logger

        check_logger(log)
    found = None
    if find_lr or find_lr_only:
        found = search_rate(
            recipe,
            out,
            start=recipe.learning_rate if recipe_file or on_the_line("lr") else None,
            device=device,
            overwrite=overwrite,
            restart=restart,
            keep=not find_lr_only,
            allow=frozenset(allow),
            say=say,
        )
        if find_lr_only:
            leave_beside(found, out, say, recipe_file=recipe_file)
            return
    with _recorded(log, out, found.recipe if found else recipe, say) as record:
        trained = _train(
            recipe,
            out,
            found,
            device=device,
            overwrite=overwrite,
            restart=restart,
            golden=golden or 0,
            allow=frozenset(allow),
            record=record,
            say=say,
        )
    say.data(_json(trained) | ({"find_lr": found.document} if found else {}))
    _show(trained, say)
    _diverged(trained)
    say.next(f"adapterhub push {out} USER/{out.name}")


def _train(
    recipe: Recipe,
    out: Path,
    found: RateFound | None,
    *,
    device: str | None,
    overwrite: bool,
    restart: bool,
    golden: int,
    allow: frozenset[str],
    record: Callable[[Step], None],
    say: Output,
) -> Trained:
    from adapterhub.train.run import train_adapter

    with say.progress(unit="steps") as bar:
        line = bar.add_task("training", total=recipe.steps, note="")

        def on_step(step: Step) -> None:
            bar.update(line, completed=step.number, note=_note(step))
            record(step)

        return train_adapter(
            found.recipe if found else recipe,
            out,
            device=device,
            overwrite=overwrite,
            # A search has made room already, and left its result there.
            restart=restart and found is None,
            files=found.files if found else {},
            on_step=on_step,
            say=say.say,
            base=found.base if found else None,
            golden=golden,
            allow=allow,
        )


@contextmanager
def _recorded(
    log: str | None, out: Path, recipe: Recipe, say: Output
) -> Iterator[Callable[[Step], None]]:
    """What is to be told each step, so that --log has it."""
    if log is None:
        yield lambda _: None
        return
    from adapterhub.train.log import open_logger
    from adapterhub.train.save import published

    with open_logger(log, out=out, settings=published(recipe)) as logger:
        say.say(f"logging to {logger.place}")
        yield logger.step


def _recipe(file: Path | None, settings: dict[str, Any], say: Output) -> Recipe:
    if file is not None:
        refuse_beside(file, allowed=_BESIDE_A_RECIPE)
        return recipe_in(file, say=say.say)
    for name, option in (("base_name", "--base"), ("data", "--data")):
        if settings[name] is None:
            raise UsageError(
                f"training needs {option}",
                hint="adapterhub train --base NAME --data FILE.jsonl -o DIR",
            )
    from adapterhub.plugin.catalog import catalog

    return recipe_of(settings, catalog().methods[settings["method"]], say=say.say)


def _note(step: Step) -> str:
    held_out = "" if step.eval_loss is None else f" · held out {step.eval_loss:.3f}"
    return f"loss {step.loss:.3f}{held_out} · {step.tokens / step.seconds:.0f} tok/s"


def _json(trained: Trained) -> dict[str, Any]:
    outcome = trained.outcome
    steps = outcome.steps
    return {
        "folder": str(trained.folder),
        "parameters": trained.parameters,
        "steps": len(steps),
        "stopped": outcome.stopped,
        "kept": outcome.kept,
        "resumed": outcome.resumed,
        "loss": [step.loss for step in steps],
        "eval_loss": {s.number: s.eval_loss for s in steps if s.eval_loss is not None},
        "tokens": steps[-1].tokens if steps else 0,
        "padding": outcome.padding,
        "optimizer": outcome.optimizer,
        "accumulate": outcome.accumulate,
        "seconds": steps[-1].seconds if steps else 0.0,
        "data_sha256": trained.manifest.data_sha256,
    }


def _show(trained: Trained, out: Output) -> None:
    outcome = trained.outcome
    steps = outcome.steps
    last = steps[-1]
    size = sum(file.stat().st_size for file in trained.folder.iterdir())
    out.line(
        f"{trained.folder}   {trained.manifest.method} · {trained.parameters:,} parameters · "
        f"{megabytes(size)}"
    )
    out.line(
        f"  loss     {steps[0].loss:.3f} -> {last.loss:.3f} in {len(steps)} steps, "
        f"{last.seconds:.0f} s, {last.tokens / last.seconds:.0f} tok/s, "
        f"{outcome.padding:.0%} padding · {trained.folder}/loss.png"
    )
    _show_evaluation(outcome, out)


def _show_evaluation(outcome: Outcome, out: Output) -> None:
    taken = [(s.number, s.eval_loss) for s in outcome.steps if s.eval_loss is not None]
    if not taken:
        return
    best, loss = min(taken, key=lambda pair: pair[1])
    why = ", which has stopped falling" if outcome.stopped == "early" else ""
    out.line(
        f"  held out {taken[0][1]:.3f} -> {taken[-1][1]:.3f}{why}; lowest {loss:.3f} at step "
        f"{best} · kept: step {outcome.kept}"
    )


def _diverged(trained: Trained) -> None:
    """What was good is on disk by now; the exit code still says that the run is not finished."""
    if trained.outcome.stopped == "diverged":
        raise TrainingError(
            f"the loss stopped being finite or exploded; {trained.folder} holds the adapter of "
            f"step {trained.outcome.kept}, the last that was good",
            hint="lower --lr",
        )
