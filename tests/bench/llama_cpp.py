"""The same base and the same adapter in llama.cpp and here: do they choose the same tokens?

    python -m tests.bench.llama_cpp --work DIR [--node-modules DIR] [--adapter DIR]

Stores the demo's base as NF4, trains its iso-dates adapter (unless one is given), writes both as
GGUF in float32, and gives both programs the same 50 held-out prompts with their answers, token by
token. At each place the likeliest token must be the same wherever the two likeliest differ by more
than ROUNDING, for the base alone and with the adapter. llama.cpp comes as the prebuilt binary of
the npm package node-llama-cpp, which is fetched into DIR if it is nowhere given; it needs node.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.domain.engines import ScoreRequest, Slots
from adapterhub.domain.evaluation import Item
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.evaluate.tasks.load import load_task
from adapterhub.hub.adapter_facts import read_facts
from adapterhub.hub.folder import read_folder
from adapterhub.models.bases import add_base, find_base, list_bases
from adapterhub.models.export import export_adapter, export_base
from adapterhub.models.loader import Base, load_base
from adapterhub.models.sample import fetch_sample
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.runtime.engine import open_engine
from adapterhub.runtime.reference import ReferenceEngine
from adapterhub.train.run import train_adapter

TASK, BASE, PROMPTS = "iso-dates", "smollm2", 50
# In logits. Both sum products of float32 numbers in another order, some hundred terms at a time
# and thirty blocks deep; the largest difference seen is printed beside it.
ROUNDING = 0.001
NODE_PACKAGE = "node-llama-cpp@3.22.1"
SCRIPT = Path(__file__).with_suffix(".mjs")

Top = tuple[tuple[int, float], tuple[int, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """`close` places have two likeliest tokens nearer than ROUNDING; `wrong` others disagree."""

    places: int
    same: int
    close: int
    wrong: int
    difference: float

    def line(self, what: str) -> str:
        return (
            f"{what:<16} {self.same} of {self.places} places choose the same token; {self.close} "
            f"within rounding, {self.wrong} wrong; logits differ by at most {self.difference:.2g}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--node-modules", type=Path)
    parser.add_argument("--adapter", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    os.environ.setdefault("ADAPTERHUB_HOME", str(work / "home"))
    if BASE not in {spec.name for spec in list_bases()}:
        add_base(BASE, str(fetch_sample(say=print)), scheme_by_name("nf4"), say=print)
    base = load_base(find_base(BASE), device="cpu")
    adapter = arguments.adapter or trained(base, work / "my-dates")
    base_file, adapter_file = work / "base.gguf", work / "adapter.gguf"
    write_gguf(base, adapter, base_file, adapter_file)
    modules = arguments.node_modules or fetched(work)
    items = load_task(TASK, limit=PROMPTS).items
    engine = open_engine(base)
    engine.rack.attach("mine", read_folder(adapter))
    failed = False
    for what, lora, slots in (
        ("base alone", None, ()), ("with the adapter", adapter_file, (("mine", 1.0),))
    ):  # fmt: skip
        ours = here(engine, items, slots)
        theirs = there(base, items, base_file, lora, modules=modules, work=work)
        found = compare(ours, theirs)
        print(found.line(what))
        failed = failed or found.wrong > 0
    sys.exit(1 if failed else 0)


def trained(base: Base, folder: Path) -> Path:
    if not folder.exists():
        recipe = Recipe(base=BASE, data=TASK, steps=24, learning_rate=2e-3)
        train_adapter(recipe, folder, base=base)
    return folder


def write_gguf(base: Base, adapter: Path, base_file: Path, adapter_file: Path) -> None:
    exporter = load_target(catalog().exporter_for("gguf").target)()
    for path in (base_file, adapter_file):
        path.unlink(missing_ok=True)
    export_base(base.spec, exporter, base_file)
    facts = read_facts(read_folder(adapter), name=adapter.name, family=base.spec.family)
    export_adapter(adapter, facts, exporter, base.spec, adapter_file)


def fetched(work: Path) -> Path:
    """The package with its prebuilt binary; nothing is compiled and no script of it is run."""
    if not (work / "node_modules" / "node-llama-cpp").exists():
        subprocess.run(
            ["npm", "install", "--ignore-scripts", "--prefix", str(work), NODE_PACKAGE], check=True
        )
    return work / "node_modules"


def here(engine: ReferenceEngine, items: tuple[Item, ...], slots: Slots) -> list[list[Any]]:
    """For each item, logits (answer tokens, vocabulary) before each token of the answer."""
    scores = engine.score(
        [
            ScoreRequest(messages=item.messages, answer=item.answer, slots=slots, logits=True)
            for item in items
        ]
    )
    return [list(score.logits) for score in scores]


def there(
    base: Base,
    items: tuple[Item, ...],
    model: Path,
    lora: Path | None,
    *,
    modules: Path,
    work: Path,
) -> list[list[Top]]:
    sequences = []
    for item in items:
        prompt = base.chat.prompt_ids(item.messages)
        answer = base.chat.answer_ids(item.messages, item.answer)
        sequences.append({"ids": [*prompt, *answer], "from": len(prompt) - 1})
    request, answered = work / "request.json", work / "answer.json"
    asked = {"model": str(model), "lora": str(lora) if lora else None, "sequences": sequences}
    request.write_text(json.dumps(asked))
    subprocess.run(
        ["node", str(SCRIPT), str(modules), str(request), str(answered)], check=True, cwd=work
    )
    found: list[list[Top]] = json.loads(answered.read_text())
    return found


def compare(ours: list[list[Any]], theirs: list[list[Top]]) -> Agreement:
    """Their top two tokens against our whole logits, place by place."""
    places = same = close = wrong = 0
    difference = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        for logits, top in zip(mine, other, strict=True):
            places += 1
            first, second = logits.topk(2)[0].tolist()
            agrees = int(logits.argmax()) == top[0][0]
            near = min(first - second, top[0][1] - top[1][1]) <= ROUNDING
            same += agrees
            close += near and not agrees
            wrong += not agrees and not near
            difference = max(difference, *(abs(float(logits[t]) - value) for t, value in top))
    return Agreement(places=places, same=same, close=close, wrong=wrong, difference=difference)


if __name__ == "__main__":
    main()
