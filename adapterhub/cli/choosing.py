"""Choose few-shot examples out of a file for `adapterhub design`, and tell what was tried.

Loads base and rows; how sets are searched and judged is `adapterhub.evaluate.shots`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.cli.output import Output
from adapterhub.errors import DataError, NoEffectError, UsageError

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.evaluation import Item
    from adapterhub.evaluate.shots import Judge, Tried

Make = Callable[[list[dict[str, str]]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What was tried and chosen. `lines` are those of the pool's rows, `without` is the score
    behind everything but the examples that were to be chosen."""

    examples: list[dict[str, str]]
    recipe: dict[str, Any]
    data_sha256: str
    tried: tuple[Tried, ...]
    best: Tried
    without: float
    lines: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "score_without": self.without,
            "score": self.best.score,
            "chosen": self._lines_of(self.best),
            "tried": [
                {
                    "lines": self._lines_of(one),
                    "how": one.how,
                    "score": one.score if math.isfinite(one.score) else None,
                }
                for one in self.tried
            ],
        }

    def show(self, out: Output) -> None:
        rows = [
            (
                "chosen" if one is self.best else one.how,
                f"{one.score:.4f}" if math.isfinite(one.score) else "too long",
                " ".join(map(str, self._lines_of(one))),
            )
            for one in sorted(self.tried, key=lambda one: -one.score)
        ]
        measure = str(self.recipe["score"])
        out.table(("set", measure, "lines"), [*rows, ("none", f"{self.without:.4f}", "")])
        if self.best.score <= self.without:
            out.say("note: no set of examples does better than none")
        out.say("this score chose the examples, so it flatters them: measure them on other rows")

    def _lines_of(self, one: Tried) -> list[int]:
        return [self.lines[index] for index in one.examples]


def choose_examples(
    method: str,
    spec: BaseSpec,
    make: Make,
    count: int,
    *,
    data: str,
    settings: Mapping[str, Any],
    say: Output,
) -> Choice:
    """Try sets of `count` rows of `data` as what `make` turns into an adapter's config.

    Raises UsageError when there are too few rows, or no set fits into the base.
    """
    from adapterhub.evaluate.shots import best_of, choose, example_of, most_trials, split_rows
    from adapterhub.train.data import load_items

    found, data_sha256 = load_items(data, seed=settings["seed"])
    items = [item for _, item in found]
    split = split_rows(items, judges=settings["validate"], seed=settings["seed"])
    pool = [example_of(items[index]) for index in split.pool]
    most = most_trials(len(pool), count, trials=settings["trials"])
    plain = _without_more(make)
    judge = _open_judge(method, spec, [items[index] for index in split.judges], settings)
    without = judge.bare() if plain is None else judge.with_adapter(plain)

    def score(examples: tuple[int, ...]) -> float:
        try:
            return judge.with_adapter(make([pool[index] for index in examples]))
        except DataError:  # the base took the same rows without these examples
            return -math.inf

    with say.progress(unit="sets") as bar:
        line = bar.add_task("choosing", total=most, note="")
        tried = choose(
            len(pool),
            count,
            score,
            trials=settings["trials"],
            seed=settings["seed"],
            on_tried=lambda one: bar.update(line, advance=1, note=f"{one.score:.3f}"),
        )
    best = best_of(tried)
    if not math.isfinite(best.score):
        raise UsageError(
            f"every set of {count} examples is too long for {spec.name}",
            hint="choose fewer, or give shorter rows",
        )
    return Choice(
        examples=[pool[index] for index in best.examples],
        recipe={
            "choose": count,
            "data": Path(data).name,
            **{key: settings[key] for key in ("score", "trials", "seed")},
            "validate": len(split.judges),
            "sets_tried": len(tried),
            "score_without": without,
            "score_with": best.score,
        },
        data_sha256=data_sha256,
        tried=tried,
        best=best,
        without=without,
        lines=tuple(found[index][0] for index in split.pool),
    )


def _without_more(make: Make) -> dict[str, Any] | None:
    """The config without examples of the pool; None where that leaves nothing."""
    try:
        return make([])
    except NoEffectError:
        return None


def _open_judge(
    method: str, spec: BaseSpec, items: Sequence[Item], settings: Mapping[str, Any]
) -> Judge:
    from adapterhub.evaluate.shots import Judge
    from adapterhub.models.loader import load_base
    from adapterhub.runtime.engine import open_engine

    engine = open_engine(load_base(spec, device=settings["device"]))
    return Judge(engine=engine, method=method, items=items, measure=settings["score"])
