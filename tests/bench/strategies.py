"""Every merge strategy on adapters trained for real, ours beside peft's merges of the same two.

    python -m tests.bench.strategies HOME --device cuda [--source FILE] [--seeds 3] [--limit 128]

A LoRA of rank 16 for each bundled task and seed, on SmolLM2-135M-Instruct in NF4 (or on the folder
or GGUF file of --source). Then exact match on held-out items, the same for every row: the base,
each adapter alone, both attached, both merged by every strategy of the catalog with its default
options (rank 16 unless it keeps ranks), as `compat` recommends, and by peft's
`add_weighted_adapter` with rank 16 and our densities; every weight is 1 but compat's. Of each seed
one engine asks them all, the seeds side by side. HOME keeps the trained adapters; figures and item
scores go to HOME/strategies.json.

An interval is 95%, of the mean paired difference on the same items. Each item's differences are
averaged over the seeds first, so an item is one cluster; then comes the adjusted Wald interval of
Bonett and Price, as in `adapterhub.evaluate.compare`: one item gained and one lost are added. With
one seed it is theirs exactly; equal answers on all of n items still leave about 2.8 / n either way,
so that at least 54 items are needed to be within the margin. It is about new items for these
adapters: what another training would change, the scores by seed in the JSON show.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from adapterhub.compose.compatibility import advice_for, relate
from adapterhub.compose.executor import merge
from adapterhub.compose.members import open_member, outline
from adapterhub.compose.plan import make_plan
from adapterhub.domain.composition import NEVER_MERGED
from adapterhub.domain.engines import Slots
from adapterhub.domain.evaluation import TaskData
from adapterhub.domain.method import Strategy
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.evaluate.compare import Z
from adapterhub.evaluate.runner import evaluate
from adapterhub.evaluate.tasks.load import load_task
from adapterhub.hub.folder import read_folder
from adapterhub.models.bases import add_base, base_folder, find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.models.sample import fetch_sample
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.engine import open_engine
from adapterhub.testing.tiny import temporary_home
from adapterhub.train.run import train_adapter
from tests.bench.peft_merges import PEERS, RANK, density, peft_merge

RATE, MARGIN = 2e-3, 0.05
BASE, ATTACHED, COMPAT = "base", "attached linear", "as compat says"
# By row and task, one tuple of item scores for each seed.
Scores = dict[str, dict[str, list[tuple[float, ...]]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    delta: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.delta:+5.0%} [{self.low:+5.0%}, {self.high:+5.0%}]"


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Difference:
    """Of scores by seed and item; the interval is the module's."""
    items = list(zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True))
    values = [fmean(one) - fmean(other) for one, other in items]
    n = len(values) + 2
    centre = math.fsum(values) / n
    spread = (math.fsum(value**2 for value in values) + 2) / n - centre**2
    half = Z * math.sqrt(spread / n)
    return Difference(
        delta=fmean(values), low=max(-1.0, centre - half), high=min(1.0, centre + half)
    )


# --- adapters ---------------------------------------------------------------------------------


def load(home: Path, source: Path | None, device: str) -> Base:
    name = "merged-on" if source is None else f"merged-on-{source.stem.lower()}"
    if not base_folder(name).is_dir():
        found = source or fetch_sample(say=print)
        add_base(name, str(found), scheme_by_name("nf4"), say=print)
    return load_base(find_base(name), device=device)


def trained(place: Path, base: Base, task: str, *, seed: int, steps: int) -> Path:
    folder = place / f"{base.spec.name}-{task}-{seed}-{steps}"
    if not folder.is_dir():
        recipe = Recipe(
            base=base.spec.name, data=task, seed=seed, steps=steps, learning_rate=RATE,
            options={"rank": RANK},
        )  # fmt: skip
        train_adapter(recipe, folder, base=base)
    return folder


def strategies() -> list[Strategy]:
    """Those that can be merged."""
    return [entry.record for entry in catalog().strategies if entry.record.name not in NEVER_MERGED]


def our_merges(
    folders: Sequence[Path], out: Path, device: str
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The folder of each row, and what `compat` recommends."""
    members = [open_member(folder.name, read_folder(folder)) for folder in folders]
    outlines = [outline(member) for member in members]
    made = {}
    for record in strategies():
        rank = None if record.exact or record.full_rank else RANK
        plan = make_plan(outlines, strategy=record, rank=rank)
        into = out / record.name
        made[record.name] = merge(members, plan, into, overwrite=True, device=device).folder
    advice = advice_for(outlines, relate(members, outlines))
    weighted = [replace(m, weight=w) for m, w in zip(members, advice.weights, strict=True)]
    plan = make_plan(
        [outline(member) for member in weighted],
        strategy=catalog().strategies[advice.strategy],
        rank=advice.rank,
        options=advice.options,
    )
    made[COMPAT] = merge(weighted, plan, out / COMPAT, overwrite=True, device=device).folder
    return made, {**asdict(advice), "options": dict(advice.options)}


# --- the whole of it --------------------------------------------------------------------------


def measure(
    name: str,
    device: str,
    folders: Mapping[str, Path],
    pair: Sequence[str],
    tasks: Sequence[TaskData],
) -> dict[tuple[str, str], tuple[float, ...]]:
    """Item scores by row and task, of the base of this name, of each folder and of the pair
    attached."""
    engine = open_engine(load_base(find_base(name), device=device))
    for slot, folder in folders.items():
        engine.rack.attach(slot, read_folder(folder))
    subjects: list[tuple[str, Slots]] = [(slot, ((slot, 1.0),)) for slot in folders]
    subjects.append((ATTACHED, tuple((slot, 1.0) for slot in pair)))
    found = evaluate(engine, subjects, tasks)
    scores = {(row.adapter, row.task): row.per_item for row in found.rows}
    return {(BASE, row.task): row.per_item for row in found.base_rows} | scores


def place(scores: Scores, advice: Mapping[str, Any], seed: int) -> str:
    """How the recommended merge's mean score over the tasks ranks among the catalog's."""
    means = {
        name: fmean(fmean(by_seed[seed]) for by_seed in scores[name].values())
        for name in (*(strategy.name for strategy in strategies()), COMPAT)
    }
    own = means.pop(COMPAT)
    better, equal = sum(m > own for m in means.values()), sum(m == own for m in means.values())
    best = max(means, key=lambda name: means[name])
    return (
        f"seed {seed}: {advice['strategy']}, rank {advice['rank'] or 'its own'}, weights "
        f"{', '.join(f'{w:g}' for w in advice['weights'])}: mean {own:.1%}; of {len(means)} "
        f"strategies {better} score more, {equal} the same; the best is {best}, {means[best]:.1%}"
    )


def report(home: Path, scores: Scores, advice: Sequence[dict[str, Any]], facts: Any) -> None:
    tasks, rows = list(scores[BASE]), dict[str, Any]()
    print(f"\n{'':<26}" + "".join(f"{task:<12}{'minus attached':<24}" for task in tasks))
    for name, found in scores.items():
        against = {task: difference(found[task], scores[ATTACHED][task]) for task in tasks}
        means = {task: fmean(map(fmean, found[task])) for task in tasks}
        cells = (f"{means[task]:>6.1%}      {against[task]!s:<24}" for task in tasks)
        print(f"{name:<26}" + "".join(cells))
        rows[name] = {
            task: {"score": means[task], "by_seed": [fmean(one) for one in found[task]],
                   "minus_attached": asdict(against[task]),
                   "items": ["".join(str(int(s)) for s in one) for one in found[task]]}
            for task in tasks
        }  # fmt: skip
    peers = []
    print(f"\nours minus peft's; not inferior: the interval is above {-MARGIN:.0%}")
    for kind, ours in PEERS.items():
        title = f"{ours} - peft {kind}"
        paired = {t: difference(scores[ours][t], scores[f"peft {kind}"][t]) for t in tasks}
        told = []
        for task, one in paired.items():
            verdict = "not inferior" if one.low > -MARGIN else "open" if one.high > 0 else "worse"
            told.append(f"{task} {one} {verdict:<14}")
            peers.append({"ours": ours, "peft": kind, "task": task, **asdict(one),
                          "verdict": verdict})  # fmt: skip
        print(f"{title:<44}" + "".join(told))
    places = [place(scores, one, seed) for seed, one in enumerate(advice)]
    print("\nas compat says\n" + "\n".join(places), flush=True)
    result = {**facts, "rows": rows, "peers": peers, "margin": MARGIN}
    result["compat"] = [{**a, "place": t} for a, t in zip(advice, places, strict=True)]
    (home / "strategies.json").write_text(json.dumps(result, indent=1))


def compare(asked: argparse.Namespace, home: Path, pool: ProcessPoolExecutor) -> None:
    started = time.perf_counter()

    def clock(what: str) -> None:
        print(f"{time.perf_counter() - started:6.1f} s  {what}", flush=True)

    base = load(home, asked.source, asked.device)
    names = [entry.record.name for entry in catalog().tasks]
    tasks = [replace(load_task(n, limit=asked.limit), metrics=("exact_match",)) for n in names]
    pairs: list[list[Path]] = []
    theirs: list[dict[str, Future[Path]]] = []
    for seed in range(asked.seeds):
        pairs.append([trained(home / "adapters", base, name, seed=seed, steps=asked.steps)
                      for name in names])  # fmt: skip
        clock(f"seed {seed} trained")
        theirs.append(
            {f"peft {kind}": pool.submit(peft_merge, pairs[-1], kind, home / f"peft-{seed}" / kind,
                                         density(ours)) for kind, ours in PEERS.items()}
        )  # fmt: skip
    scores: Scores = {}
    advice, asking = [], []
    for seed, pair in enumerate(pairs):
        merged, advised = our_merges(pair, home / f"merged-{seed}", asked.device)
        advice.append(advised)
        clock(f"seed {seed} merged by ours")
        alone = dict(zip(names, pair, strict=True))
        by_peft = {name: future.result() for name, future in theirs[seed].items()}
        clock(f"seed {seed} merged by peft")
        folders = alone | merged | by_peft
        asking.append(pool.submit(measure, base.spec.name, asked.device, folders, names, tasks))
    for seed, future in enumerate(asking):
        found = future.result()
        for name in dict.fromkeys(name for name, _ in found):
            for task in names:
                scores.setdefault(name, {}).setdefault(task, []).append(found[name, task])
        clock(f"seed {seed} asked {asked.limit} items of each task")
        facts = {
            "base": base.spec.source, "scheme": str(base.spec.scheme), "device": base.device,
            "seeds": seed + 1, "steps": asked.steps, "limit": asked.limit, "rank": RANK,
            "peft": version("peft"), "torch": version("torch"),
            "seconds": time.perf_counter() - started,
        }  # fmt: skip
        report(home, scores, advice[: seed + 1], facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("home", type=Path)
    parser.add_argument("--source", type=Path, help="the base's folder or GGUF file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=128, help="held-out items of each task")
    parser.add_argument("--steps", type=int, default=32)
    asked = parser.parse_args()
    home: Path = asked.home.absolute()
    # peft's merges run beside the rest, a thread each; threads that share a core wait by spinning.
    cores = min(16, len(os.sched_getaffinity(0)))
    workers = max(1, min(len(PEERS), cores // 2))
    torch.set_num_threads(max(1, cores - workers))
    # Not forked: a CUDA context does not survive that.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool, temporary_home(home):
        compare(asked, home, pool)


if __name__ == "__main__":
    main()
