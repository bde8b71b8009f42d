"""Few rows, with and without a teacher: does a rank-4 student learn more from soft labels?

    python -m tests.bench.distillation --gguf FILE --out DIR [--device cuda] [--task strict-json]

A rank-64 adapter is trained on many rows of the task; it teaches. Then, for each seed, a rank-4
student learns from the same few rows in two ways, from the same start, in the same order and for as
many steps: by their labels alone (sft), and by what the teacher says of them (distill). Each way
has the rate and number of steps that did best, by log-likelihood, on rows that neither trained on;
they are chosen once, with rows of their own. Held-out items are those of the task, whose values
occur in no row at all. The interval is Student's t over the seeds' paired differences.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adapterhub.domain.engines import GenerateRequest, ScoreRequest
from adapterhub.domain.evaluation import Item
from adapterhub.domain.protocols import TaskSource
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.evaluate.metrics import exact_match
from adapterhub.formats.rows import row_to_messages
from adapterhub.hub.folder import read_folder
from adapterhub.models.bases import add_base, list_bases
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.runtime.engine import open_engine
from adapterhub.train.run import train_adapter

# The 97.5% points of Student's t by degrees of freedom; beyond them the normal one is near enough.
STUDENT_T = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
SEARCH_SEED, VALIDATION_SEED, TEACHER_SEED = 999, 777, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Share of items answered exactly, and nats a token of the right answers (less is better)."""

    exact: float
    nats: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What one way of training chose for itself."""

    rate: float
    steps: int
    validation_nats: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What stays the same for all runs."""

    base: Base
    source: TaskSource
    held_out: Sequence[Item]
    max_new_tokens: int
    place: Path
    rows: int

    def data(self, n: int, *, seed: int) -> Path:
        path = self.place / f"rows-{n}-{seed}.jsonl"
        lines = [json.dumps(row) for row in self.source.train_rows(n, seed=seed)]
        path.write_text("\n".join(lines) + "\n")
        return path

    def validation(self, n: int) -> list[Item]:
        """Rows that no student sees, of the kind they are trained on."""
        made = []
        for line, row in enumerate(self.source.train_rows(n, seed=VALIDATION_SEED), start=1):
            messages, answer = row_to_messages(row, line, "validation")
            made.append(Item(messages=messages, answer=answer))
        return made

    def score(
        self, folder: Path | None, items: Sequence[Item], *, base: Base | None = None
    ) -> Score:
        engine = open_engine(base or self.base)
        slots: tuple[tuple[str, float], ...] = ()
        if folder is not None:
            engine.rack.attach("measured", read_folder(folder))
            slots = (("measured", 1.0),)
        asked = [
            GenerateRequest(messages=i.messages, slots=slots, max_new_tokens=self.max_new_tokens)
            for i in items
        ]
        given = [generation.text for generation in engine.generate(asked)]
        right = [exact_match(text, item.answer) for text, item in zip(given, items, strict=True)]
        nats = self._nats(engine, slots, items)
        if folder is not None:
            engine.rack.detach("measured")
        return Score(exact=statistics.fmean(right), nats=nats)

    def nats(self, folder: Path, items: Sequence[Item]) -> float:
        engine = open_engine(self.base)
        engine.rack.attach("measured", read_folder(folder))
        found = self._nats(engine, (("measured", 1.0),), items)
        engine.rack.detach("measured")
        return found

    def _nats(self, engine: Any, slots: Any, items: Sequence[Item]) -> float:
        asked = [ScoreRequest(messages=i.messages, answer=i.answer, slots=slots) for i in items]
        found = [score.logprobs for score in engine.score(asked)]
        return -math.fsum(map(math.fsum, found)) / sum(map(len, found))


# --- runs -------------------------------------------------------------------------------------


def teach(bench: Bench, base: Base, *, rows: int, steps: int, rate: float) -> Path:
    """The teacher: the same task, many rows, and a rank to hold them."""
    recipe = Recipe(
        base=base.spec.name,
        data=str(bench.data(rows, seed=TEACHER_SEED)),
        options={"rank": 64},
        steps=steps,
        learning_rate=rate,
        seed=TEACHER_SEED,
    )
    return train_adapter(recipe, bench.place / "teacher", base=base, overwrite=True).folder


def ways(bench: Bench, teacher: Path, teacher_base: str | None, options: Any) -> dict[str, Recipe]:
    """The two recipes, alike but for who is learnt from."""
    student = Recipe(base=bench.base.spec.name, data="", options={"rank": 4}, batch_size=8)
    taught = replace(
        student,
        trainer="distill",
        teacher=str(teacher),
        teacher_base=teacher_base,
        trainer_options=options,
    )
    return {"sft": student, "distill": taught}


def train(bench: Bench, way: str, recipe: Recipe, *, seed: int) -> Path:
    recipe = replace(recipe, data=str(bench.data(bench.rows, seed=1000 + seed)), seed=seed)
    return train_adapter(recipe, bench.place / way, base=bench.base, overwrite=True).folder


def chosen(
    bench: Bench, way: str, recipe: Recipe, grid: Sequence[tuple[float, int]], items: Sequence[Item]
) -> Setting:
    """The rate and number of steps with the best likelihood on rows that were not trained on."""
    found = []
    for rate, steps in grid:
        tried = replace(recipe, learning_rate=rate, steps=steps)
        nats = bench.nats(train(bench, way, tried, seed=SEARCH_SEED), items)
        found.append(Setting(rate=rate, steps=steps, validation_nats=nats))
        print(f"  {way:<8} rate {rate:g}, {steps} steps: {nats:.4f} nats", flush=True)
    return min(found, key=lambda setting: setting.validation_nats)


def named_settings(text: str) -> dict[str, Setting]:
    """`sft=2e-3:24,distill=4e-3:64`: the rate and the steps of each way."""
    found = {}
    for part in text.split(","):
        way, _, setting = part.partition("=")
        rate, _, steps = setting.partition(":")
        found[way] = Setting(rate=float(rate), steps=int(steps), validation_nats=math.nan)
    return found


# --- figures ----------------------------------------------------------------------------------


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% interval of paired differences."""
    n = len(differences)
    mean = statistics.fmean(differences)
    if n < 2:
        return mean, -math.inf, math.inf
    t = STUDENT_T[n - 1] if n <= len(STUDENT_T) else 1.96
    half = t * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def summary(found: dict[str, list[Score]]) -> dict[str, Any]:
    pairs = list(zip(found["sft"], found["distill"], strict=True))
    exact = interval([taught.exact - alone.exact for alone, taught in pairs])
    nats = interval([taught.nats - alone.nats for alone, taught in pairs])
    return {"exact": exact, "nats": nats}


def show(
    bare: Score, teacher: Score, found: dict[str, list[Score]], settings: dict[str, Setting]
) -> None:
    print("\n| | rate | steps | exact match | nats a token | by seed |")
    print("|---|---|---|---|---|---|")
    print(f"| base | | | {bare.exact:.1%} | {bare.nats:.4f} | |")
    print(f"| teacher | | | {teacher.exact:.1%} | {teacher.nats:.4f} | |")
    for way, scores in found.items():
        setting = settings[way]
        exact = statistics.fmean(score.exact for score in scores)
        nats = statistics.fmean(score.nats for score in scores)
        seeds = ", ".join(f"{score.exact:.1%}" for score in scores)
        print(
            f"| {way} | {setting.rate:g} | {setting.steps} | {exact:.1%} | {nats:.4f} | {seeds} |"
        )
    gained = summary(found)
    mean, low, high = gained["exact"]
    print(f"\ndistill - sft, exact match: {mean:+.1%} [{low:+.1%}, {high:+.1%}]")
    mean, low, high = gained["nats"]
    print(f"distill - sft, nats a token: {mean:+.4f} [{low:+.4f}, {high:+.4f}]")


# --- from the command line --------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="smollm2", help="a stored base; added if not there")
    parser.add_argument("--gguf", help="what to add the base from")
    parser.add_argument("--teacher-base", help="another stored base for the teacher")
    parser.add_argument("--device")
    parser.add_argument("--task", default="strict-json")
    parser.add_argument("--rows", type=int, default=32, help="that the student sees")
    parser.add_argument("--teacher-rows", type=int, default=400)
    parser.add_argument("--teacher-steps", type=int, default=100)
    parser.add_argument("--teacher-rate", type=float, default=1e-3)
    parser.add_argument("--rates", default="5e-4,1e-3,2e-3,4e-3")
    parser.add_argument("--steps", default="16,32,64")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--settings", help="what a search chose, instead of searching: sft=2e-3:24,distill=4e-3:64"
    )
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--options", default="{}", help="of distill, as JSON")
    return parser.parse_args()


def load(name: str, gguf: str | None, device: str | None) -> Base:
    known = {spec.name: spec for spec in list_bases()}
    if name not in known and gguf:
        known[name] = add_base(name, gguf, scheme_by_name("nf4"), say=print)
    return load_base(known[name], device=device)


def main() -> None:
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ADAPTERHUB_HOME", str((asked.out / "home").absolute()))
    started = time.perf_counter()
    source: TaskSource = load_target(catalog().tasks[asked.task].target)()
    held_out = source.held_out(asked.items)
    bench = Bench(
        base=load(asked.base, asked.gguf, asked.device),
        source=source,
        held_out=held_out.items,
        max_new_tokens=held_out.max_new_tokens,
        place=asked.out,
        rows=asked.rows,
    )
    other = load(asked.teacher_base, None, asked.device) if asked.teacher_base else bench.base
    teacher = teach(
        bench, other, rows=asked.teacher_rows, steps=asked.teacher_steps, rate=asked.teacher_rate
    )
    bare = bench.score(None, bench.held_out)
    best = bench.score(teacher, bench.held_out, base=other)
    print(f"base {bare.exact:.1%}, teacher {best.exact:.1%} on {len(bench.held_out)} items")
    del other
    grid = list(
        itertools.product(
            map(float, asked.rates.split(",")), [int(n) for n in asked.steps.split(",")]
        )
    )
    recipes = ways(bench, teacher, asked.teacher_base, json.loads(asked.options))
    if asked.settings:
        settings = named_settings(asked.settings)
    else:
        validation = bench.validation(100)
        settings = {w: chosen(bench, w, r, grid, validation) for w, r in recipes.items()}
    found: dict[str, list[Score]] = {way: [] for way in recipes}
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    for seed, (way, recipe) in itertools.product(seeds, recipes.items()):
        setting = settings[way]
        final = replace(recipe, learning_rate=setting.rate, steps=setting.steps)
        found[way].append(bench.score(train(bench, way, final, seed=seed), bench.held_out))
        print(f"seed {seed}, {way}: {found[way][-1]}", flush=True)
    show(bare, best, found, settings)
    document = {
        "asked": {key: str(value) for key, value in vars(asked).items()},
        "base": asdict(bare),
        "teacher": asdict(best),
        "settings": {way: asdict(setting) for way, setting in settings.items()},
        "scores": {way: [asdict(score) for score in scores] for way, scores in found.items()},
        "distill_minus_sft": summary(found),
        "seconds": time.perf_counter() - started,
    }
    (asked.out / "distillation.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{document['seconds']:.0f} s in all, {asked.out}/distillation.json")


if __name__ == "__main__":
    main()
