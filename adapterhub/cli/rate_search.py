"""`train --find-lr`: what is seen of a search for the learning rate.

Shows and hands on; the search itself is in `adapterhub.train`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.cli.output import Output
from adapterhub.domain.recipe import Recipe

if TYPE_CHECKING:
    from adapterhub.models.loader import Base
    from adapterhub.train.trials import Found

_DROPPED = ("--find-lr", "--find-lr-only")


@dataclass(frozen=True, kw_only=True, slots=True)
class RateFound:
    """The recipe with the rate that was found, the base if it is loaded, the search as a JSON
    document, and the files that tell of it."""

    recipe: Recipe
    base: Base | None
    document: dict[str, Any]
    files: dict[str, bytes]


def search_rate(
    recipe: Recipe,
    out: Path,
    *,
    start: float | None,
    device: str | None,
    overwrite: bool,
    restart: bool,
    keep: bool,
    allow: frozenset[str],
    say: Output,
) -> RateFound:
    """Search with a progress bar and show what was found."""
    from adapterhub.train import found as report
    from adapterhub.train.find_rate import find_rate

    with say.progress(unit="steps") as bar:
        line = bar.add_task("finding the rate", total=1, note="")
        searched = find_rate(
            recipe,
            out,
            start=start,
            device=device,
            overwrite=overwrite,
            restart=restart,
            keep=keep,
            allow=allow,
            say=say.say,
            watch=lambda done, of, what: bar.update(line, completed=done, total=of, note=what),
        )
    _show(searched.found, say)
    return RateFound(
        recipe=searched.recipe,
        base=searched.base,
        document=report.document(searched.found),
        files={
            report.JSON_FILE: report.encode(searched.found),
            report.PICTURE_FILE: report.picture(searched.found),
        },
    )


def leave_beside(found: RateFound, out: Path, say: Output, *, recipe_file: Path | None) -> None:
    """Without a run there is no folder: the files lie where it would be, under its name."""
    from adapterhub.hub.files import atomic_write

    paths = [out.with_name(f"{out.name}.{name}") for name in found.files]
    for path, data in zip(paths, found.files.values(), strict=True):
        atomic_write(path, data)
    say.data({"find_lr": found.document, "files": [str(path) for path in paths]})
    say.line(f"  {' · '.join(map(str, paths))}")
    rate = found.recipe.learning_rate
    if recipe_file is None:
        say.next(command_with(rate))
    else:
        say.next(f"set learning_rate = {rate:g} in {recipe_file}, then train by it")


def command_with(rate: float, words: Sequence[str] | None = None) -> str:
    """The command line as it was given, with this rate in the place of the search."""
    kept: list[str] = []
    given = iter(sys.argv[1:] if words is None else words)
    for word in given:
        if word == "--lr":
            next(given, None)
        elif word not in _DROPPED and not word.startswith("--lr="):
            kept.append(word)
    return shlex.join(["adapterhub", *kept, "--lr", f"{rate:g}"])


def _show(found: Found, say: Output) -> None:
    from adapterhub.train import found as report

    say.table(report.HEADER, report.table(found))
    for line in report.remark(found).splitlines():
        say.line(f"  {line}")
