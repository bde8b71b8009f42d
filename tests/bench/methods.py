"""Every method on one small task and one 4-bit base: what it costs and what it is worth.

    python -m tests.bench.methods --gguf FILE --out DIR [--only lora,ia3] [--device cuda]

`--search 0.3,1,3` tries each at several multiples of its learning rate instead, and writes the
best, by exact match on items that the table does not use, to DIR/rates-METHODS.json; `--rates DIR`
reads such files.

Prints the table of plugins/README.md and writes methods.json. The score is exact match on held-out
items whose dates never occur in the training rows; the interval is that of the gain over the base
on the same items.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from adapterhub.domain.evaluation import Row, TaskData
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import TrainingError
from adapterhub.evaluate.runner import evaluate
from adapterhub.evaluate.tasks.load import load_task
from adapterhub.hub.folder import read_folder
from adapterhub.models.bases import add_base, list_bases
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.engine import open_engine
from adapterhub.train.run import Trained, train_adapter

TASK = "iso-dates"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One line of the table: a method, its options and what its recipe has of its own."""

    method: str
    rate: float
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    scheme: str = "nf4"

    @property
    def command(self) -> str:
        """The same from the command line."""
        words = ["adapterhub", "train", "--base", base_name(self.scheme), "--data", TASK]
        words += ["--method", self.method, "--lr", f"{self.rate:g}"]
        for key, value in self.options.items():
            words += ["-O", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        for key, value in self.recipe.items():
            words += [f"--{key.replace('_', '-')}", str(value)]
        return shlex.join([*words, "-o", self.folder])

    @property
    def folder(self) -> str:
        extra = "-".join(str(value) for value in self.options.values())
        return f"{self.method}-{extra}".strip("-").replace(" ", "-")


ARMS = (
    Arm(method="lora", rate=2e-3),
    Arm(method="lora", rate=2e-3, options={"dora": True}),
    Arm(method="lora", rate=1e-3, options={"init": "pissa"}),
    Arm(method="qlora", rate=6e-4),
    Arm(method="bottleneck", rate=2e-3, options={"placement": "houlsby"}),
    Arm(method="bottleneck", rate=2e-3, options={"placement": "pfeiffer"}),
    Arm(method="bottleneck", rate=2e-3, options={"placement": "parallel"}),
    Arm(method="ia3", rate=2e-2),
    Arm(method="ln_tuning", rate=3e-3),
    Arm(method="prompt_tuning", rate=1.5e-2),
    Arm(method="p_tuning", rate=2e-3),
    Arm(method="prefix_tuning", rate=6e-2),
    Arm(method="full", rate=5e-5, scheme="bf16"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one arm cost and gave. `bytes` is the weights file's size, `seconds` the training's."""

    arm: Arm
    trained: int
    bytes: int
    seconds: float
    before: Row
    after: Row
    losses: tuple[float, ...]

    def line(self) -> str:
        low, high = self.after.ci95 or (float("nan"), float("nan"))
        options = " ".join(f"{key}={value}" for key, value in self.arm.options.items())
        return (
            f"| `{self.arm.method}` {options} | {self.trained:,} | {self.bytes / 1e6:.2f} MB | "
            f"{self.seconds:.0f} | {self.arm.rate:g} | {self.before.score:.0%} | "
            f"{self.after.score:.0%} | [{low:+.0%}, {high:+.0%}] |"
        )


def base_name(scheme: str) -> str:
    return "smollm2" if scheme == "nf4" else f"smollm2-{scheme}"


def load(scheme: str, gguf: Path, device: str | None) -> Base:
    known = {spec.name: spec for spec in list_bases()}
    name = base_name(scheme)
    spec = known.get(name) or add_base(name, str(gguf), scheme_by_name(scheme), say=print)
    return load_base(spec, device=device)


def train(arm: Arm, base: Base, place: Path, *, steps: int) -> Trained:
    recipe = Recipe(base=base.spec.name, data=TASK, steps=steps, learning_rate=arm.rate)
    preset = dict(catalog().methods[arm.method].preset)
    preset.pop("learning_rate", None)
    recipe = replace(
        recipe, method=arm.method, options=dict(arm.options), **{**preset, **arm.recipe}
    )
    return train_adapter(recipe, place / arm.folder, base=base, overwrite=True)


def measured(arm: Arm, base: Base, trained: Trained, *, items: int) -> Found:
    before, after = asked_of(trained, base, load_task(TASK, limit=items))
    steps = trained.outcome.steps
    return Found(
        arm=arm,
        trained=trained.parameters,
        bytes=(trained.folder / "adapter_model.safetensors").stat().st_size,
        seconds=steps[-1].seconds,
        before=before,
        after=after,
        losses=tuple(step.loss for step in steps),
    )


def asked_of(trained: Trained, base: Base, task: TaskData) -> tuple[Row, Row]:
    """The base's row and the adapter's."""
    engine = open_engine(base)
    engine.rack.attach("measured", read_folder(trained.folder))
    found = evaluate(engine, [(trained.folder.name, (("measured", 1.0),))], [task])
    engine.rack.detach("measured")
    return found.base_rows[0], found.rows[0]


def best_rate(
    arm: Arm, factors: Sequence[float], base: Base, place: Path, *, steps: int, items: int
) -> float:
    """By exact match on other items than the table's, then by the last loss."""
    kept = set(load_task(TASK, limit=items).items)
    other = load_task(TASK, limit=2 * items, seed=1)
    other = replace(other, items=tuple(item for item in other.items if item not in kept)[:items])
    found = []
    for factor in factors:
        tried = replace(arm, rate=arm.rate * factor)
        try:
            trained = train(tried, base, place, steps=steps)
        except TrainingError as error:
            print(f"{arm.folder} at {tried.rate:g}: {error.message}", flush=True)
            continue
        score = asked_of(trained, base, other)[1].score
        loss = trained.outcome.steps[-1].loss
        print(f"{arm.folder} at {tried.rate:g}: {score:.0%}, loss {loss:.3f}", flush=True)
        found.append((score, -loss, tried.rate))
    return max(found)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--device")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--search", help="multiples of each rate, such as 0.3,1,3")
    parser.add_argument("--rates", type=Path, help="where searched rates were written")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ADAPTERHUB_HOME", str((asked.out / "home").absolute()))
    wanted = set(asked.only.split(",")) if asked.only else {arm.method for arm in ARMS}
    arms = [arm for arm in ARMS if arm.method in wanted]
    bases = {s: load(s, asked.gguf, asked.device) for s in dict.fromkeys(a.scheme for a in arms)}
    if asked.search:
        factors = [float(factor) for factor in asked.search.split(",")]
        rates = {
            arm.folder: best_rate(
                arm, factors, bases[arm.scheme], asked.out, steps=asked.steps, items=asked.items
            )
            for arm in arms
        }
        (asked.out / f"rates-{asked.only or 'all'}.json").write_text(json.dumps(rates))
        return
    for file in asked.rates.glob("rates-*.json") if asked.rates else ():
        chosen = json.loads(file.read_text())
        arms = [replace(arm, rate=chosen.get(arm.folder, arm.rate)) for arm in arms]
    table(arms, bases, asked)


def table(arms: Sequence[Arm], bases: dict[str, Base], asked: argparse.Namespace) -> None:
    done: list[Found] = []
    print("| method | trained | on disk | s | rate | before | after | gain, 95% |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for arm in arms:
        base = bases[arm.scheme]
        trained = train(arm, base, asked.out, steps=asked.steps)
        done.append(measured(arm, base, trained, items=asked.items))
        print(done[-1].line(), flush=True)
        rows = [{**asdict(one), "command": one.arm.command} for one in done]
        (asked.out / "methods.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
