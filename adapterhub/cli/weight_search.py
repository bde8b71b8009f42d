"""`stack --search-weights`: what is asked of a search for weights, and what is seen of it.

Loads rows, shows and hands on; the search itself is `adapterhub.evaluate.weight_search`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapterhub.cli.output import Output
from adapterhub.domain.composition import LINEAR
from adapterhub.errors import CapabilityError, NoEffectError, UsageError

if TYPE_CHECKING:
    from adapterhub.compose.members import Member
    from adapterhub.domain.evaluation import Item
    from adapterhub.evaluate.weight_search import Found, Rows
    from adapterhub.runtime.reference import ReferenceEngine

F = TypeVar("F", bound=Callable[..., Any])

TRIALS = 40
ROWS = 96


def search_options(function: F) -> F:
    """--search-weights and what goes with it."""
    for option in (
        click.option(
            "--trials", type=click.IntRange(2, 10_000), help=f"At most; default: {TRIALS}."
        ),
        click.option("--limit", type=click.IntRange(min=4), help=f"At most so many rows; {ROWS}."),
        click.option("--task", metavar="FILE|NAME", help="The rows to search the weights on."),
        click.option(
            "--search-weights", is_flag=True, help="Find the weights by --task, on --base."
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A search that is wanted."""

    task: str
    limit: int
    trials: int

    def check(self, strategy: str) -> None:
        """Raises CapabilityError for a strategy whose weights are not searched."""
        if strategy != LINEAR:
            raise CapabilityError(
                f"weights are searched for {LINEAR} alone, not for {strategy}: a trial attaches "
                "the adapters side by side and merges nothing",
                hint="leave --strategy out, or --search-weights",
            )

    def rows(self) -> Rows:
        """Raises UsageError where there are too few, and what reading them raises."""
        from adapterhub.evaluate.weight_search import split_rows

        return split_rows(_items(self.task), limit=self.limit, name=self.name)

    def sentence(self, rows: Rows) -> str:
        return (
            f"searching the weights: at most {self.trials} trials on {len(rows.searched)} rows of "
            f"{self.name}, judged by {len(rows.judging)} others"
        )

    @property
    def name(self) -> str:
        """Of the task, or of the file without its place."""
        return Path(self.task).name


def asked_for(settings: Mapping[str, Any], base_name: str | None) -> Asked | None:
    """None where no search is wanted. Raises UsageError for a search without base or task, and for
    an option of a search alone."""
    if not settings["search_weights"]:
        stray = [name for name in ("task", "limit", "trials") if settings[name] is not None]
        if stray:
            raise UsageError(
                f"--{stray[0]} goes with --search-weights",
                hint="add --search-weights, or leave it out",
            )
        return None
    if base_name is None or settings["task"] is None:
        raise UsageError(
            "--search-weights needs a base to attach the adapters to, and rows to ask them",
            hint="add --base NAME --task FILE|NAME",
        )
    return Asked(
        task=settings["task"],
        limit=settings["limit"] or ROWS,
        trials=settings["trials"] or TRIALS,
    )


def check_place(target: Path, *, overwrite: bool) -> None:
    """Before minutes of searching. Raises UsageError where the result could not be written."""
    from adapterhub.compose.pin import free_file
    from adapterhub.hub.staging import check_free

    decide = free_file if target.suffix == ".toml" else check_free
    decide(target, overwrite=overwrite)


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What was found, and the members with the weights that are taken."""

    asked: Asked
    found: Found
    members: tuple[Member, ...]

    @property
    def record(self) -> dict[str, str | int | float]:
        """For the recipe of what is merged: how its weights were found."""
        found = self.found
        return {
            "weights_searched_on": self.asked.name,
            "search_rows_sha256": found.rows.sha256,
            "search_trials": len(found.trials),
            "search_taken": "yes" if found.holds else "no, as written",
            "search_gain": found.gain.delta,
        }

    def to_json(self) -> dict[str, Any]:
        return {"search": {"task": self.asked.name, **self.found.to_json()}}


def search_weights(
    engine: ReferenceEngine, members: Sequence[Member], asked: Asked, rows: Rows, say: Output
) -> Searched:
    """Search with a progress bar, over members that are attached, and show what was found.

    Raises NoEffectError where nothing but the bare base is left.
    """
    from adapterhub.evaluate.weight_search import check_weighable, search
    from adapterhub.runtime.subjects import slot_of, weights_on

    check_weighable(engine, [(member.ref, slot_of(member)) for member in members])
    say.say(asked.sentence(rows))
    with say.progress(unit="trials") as bar:
        line = bar.add_task("searching", total=asked.trials, note="")
        found = search(
            engine,
            tuple((slot_of(member), member.weight) for member in members),
            rows,
            trials=asked.trials,
            scaled={
                slot_of(member): weights_on(engine.base, replace(member, weight=1.0))
                for member in members
                if member.scales
            },
            on_trial=lambda trial: bar.update(line, advance=1, note=f"{trial.value:.4f}"),
        )
    _show(found, members, say)
    if Path(asked.task).is_file():
        say.say(f"note: `eval --task {asked.task}` would flatter these weights: use other rows")
    kept = tuple(
        replace(member, weight=weight)
        for member, weight in zip(members, found.weights, strict=True)
        if weight
    )
    if not kept:
        raise NoEffectError(
            f"the bare base answers {asked.name} better than with any of these adapters",
            hint="use none of them there, or search on rows that they were made for",
        )
    return Searched(asked=asked, found=found, members=kept)


def _show(found: Found, members: Sequence[Member], say: Output) -> None:
    header = ("trial", *(member.ref for member in members), "loss")
    best = found.best
    say.table(
        header,
        [
            (
                f"{number}{' best' if trial is best else ''}",
                *(f"{weight:g}" for weight in trial.point),
                f"{trial.value:.4f}" if math.isfinite(trial.value) else "not finite",
            )
            for number, trial in enumerate(found.trials, start=1)
        ],
    )
    say.line(f"searched  loss {found.start.value:.4f} as written, {best.value:.4f} at the best")
    if best is found.start:
        say.line("no weights that were tried do better than those written: they are kept")
        return
    ends = found.gain.ci95
    interval = f"[{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends else "no interval"
    say.line(
        f"judged    loss {found.judged[0]:.4f} as written, {found.judged[1]:.4f} at the best, on "
        f"{len(found.rows.judging)} other rows: gain {found.gain.delta:+.4f} {interval}"
    )
    weights = ", ".join(
        f"{weight:g}*{member.ref}"
        for member, weight in zip(members, found.weights, strict=True)
        if weight
    )
    if found.holds:
        say.line(f"taken     {weights or 'none of them'}")
        for member, weight in zip(members, found.weights, strict=True):
            if not weight:
                say.line(f"note: {member.ref} got the weight 0 and is left out")
    else:
        say.line(f"kept      {weights}, as written: no gain on other rows that is for sure")


def _items(task: str) -> list[Item]:
    """All rows of a file; of a task, rows that it trains on and that training with the usual seed
    does not see, never those that `eval` reports on."""
    from adapterhub.train.data import load_eval_items, load_items

    path = Path(task).expanduser()
    if not path.is_file() and ("/" in task or path.suffix):
        raise UsageError(f"there is no file {task}", hint="check the path of --task")
    found, _ = load_items(task, seed=0)
    if path.is_file():
        return [item for _, item in found]
    try:
        others, _, _ = load_eval_items(task, seed=0, trained=found)
    except UsageError as error:
        raise UsageError(
            f"{task} has no rows but those that adapters are trained on",
            hint="search on a file of other rows: --task FILE",
        ) from error
    return [item for _, item in others]
