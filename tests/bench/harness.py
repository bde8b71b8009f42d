"""The same items measured here and by lm-evaluation-harness: are the figures the same?

    python -m tests.bench.harness --work DIR [--items 24]

Two bases in float32, a tiny random llama and SmolLM2, are asked four tasks of raw text: choices,
continuations, whole texts and generated answers, with prompts that end in spaces and line ends and
choices beyond ASCII. The harness, a release of its own, is installed into DIR/venv and takes torch
and transformers from this environment. Weights are such that bfloat16 holds them exactly, so that
what is stored here is what the harness reads. Fails where a log-likelihood differs by more than
ROUNDING of itself, or any answer or score at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomli_w

from adapterhub.domain.evaluation import Metric, TaskData
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.evaluate.asking import ask
from adapterhub.evaluate.measures import MEASURES
from adapterhub.evaluate.metrics import Reply
from adapterhub.evaluate.tasks.load import load_task
from adapterhub.models.bases import add_base, find_base, list_bases
from adapterhub.models.loader import load_base
from adapterhub.models.sample import fetch_sample
from adapterhub.models.sources import open_source
from adapterhub.runtime.engine import Rack, ReferenceEngine
from adapterhub.testing.tiny import write_tiny

HARNESS = "lm-eval==0.4.13"
SIDE = Path(__file__).with_name("harness_side.py")
ROUNDING = 1e-5  # of a log-likelihood: float32, in which the harness adds them up as well
WORDS = ("naïve", "Zürich", "서울", "plain", "a longer choice of several words", "São Paulo")
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """One task for both: our task.toml, the harness's configuration, and which of its metrics is
    which of ours."""

    name: str
    rows: Rows
    ours: dict[str, Any]
    theirs: dict[str, Any]
    metrics: dict[Metric, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--items", type=int, default=24)
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["ADAPTERHUB_HOME"] = str(work / "home")
    python = installed(work / "venv")
    twins = tasks(arguments.items)
    for twin in twins:
        write_task(twin, work / "tasks")
    good = True
    for name, folder in models(work):
        theirs = harness(python, folder, twins, work)
        if name not in {spec.name for spec in list_bases()}:
            add_base(name, str(folder), scheme_by_name("bf16"))
        base = load_base(find_base(name), device="cpu")
        # Row by row on both sides: a padded batch adds its products up in yet another order.
        engine = ReferenceEngine(Rack(base), base.chat, batch_tokens=1)
        for twin in twins:
            task = load_task(str(work / "tasks" / twin.name))
            replies = ask(engine, name, (), task, lambda count: None)
            good &= compare(name, twin, task, replies, theirs[twin.name])
    sys.exit(0 if good else 1)


# --- the tasks --------------------------------------------------------------------------------


def tasks(n: int) -> list[Twin]:
    # With slashes, for the harness's reader of JSON takes 1998-07-14 for a time, not a text.
    dates = load_task("iso-dates", limit=n).items
    pairs = [(item.messages[-1].content, item.answer.replace("-", "/")) for item in dates]
    sentences = [item.messages[-1].content for item in load_task("strict-json", limit=n).items]
    ends = (":", ": ", ":\n", " =")
    asked = [f"{question} as YYYY/MM/DD{ends[i % 4]}" for i, (question, _) in enumerate(pairs)]
    choices = []
    for i, (_, answer) in enumerate(pairs):
        others = [pairs[(i + k) % n][1] for k in (1, 2)]
        choices.append([*others, answer, WORDS[i % len(WORDS)], WORDS[(i + 1) % len(WORDS)]])
    shots = "May 2, 2003 => 2003/05/02\nthe 7th of June 1999 => 1999/06/07\n"
    raw = {"version": "1", "chat": False}
    return [
        Twin(
            name="choices",
            rows=[
                {"prompt": prompt, "choices": among, "answer": 2}
                for prompt, among in zip(asked, choices, strict=True)
            ],
            ours={**raw, "kind": "choice", "metrics": ["acc", "acc_norm", "acc_bytes"]},
            theirs={
                "output_type": "multiple_choice",
                "doc_to_text": "{{prompt}}",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{answer}}",
                "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
            },
            metrics={name: f"{name},none" for name in ("acc", "acc_norm", "acc_bytes")},
        ),
        Twin(
            name="continuations",
            rows=[{"prompt": q, "completion": a} for q, (_, a) in zip(asked, pairs, strict=True)],
            ours={**raw, "kind": "likelihood", "separator": ""},
            theirs={
                "output_type": "loglikelihood",
                "doc_to_text": "{{prompt}}",
                "doc_to_target": "{{completion}}",
                "metric_list": [{"metric": "perplexity"}],
            },
            metrics={},  # its perplexity is of items, ours of tokens
        ),
        Twin(
            name="texts",
            rows=[{"text": f"{a} {b}"} for a, b in pairwise(sentences)],
            ours={**raw, "kind": "likelihood", "metrics": ["bits_per_byte"]},
            theirs={
                "output_type": "loglikelihood_rolling",
                "doc_to_text": "",
                "doc_to_target": "{{text}}",
                "metric_list": [{"metric": "bits_per_byte"}],
            },
            metrics={"bits_per_byte": "bits_per_byte,none"},
        ),
        Twin(
            name="written",
            rows=[{"prompt": f"{shots}{q} =>", "completion": a} for q, a in pairs],
            ours={
                **raw,
                "kind": "generate",
                "metrics": ["exact_match"],
                "max_new_tokens": 24,
                "stop": ["\n"],
            },
            theirs={
                "output_type": "generate_until",
                "doc_to_text": "{{prompt}}",
                "doc_to_target": "{{completion}}",
                "generation_kwargs": {"until": ["\n"], "max_gen_toks": 24, "do_sample": False},
                "filter_list": [
                    {"name": "stripped", "filter": [{"function": "remove_whitespace"}]}
                ],
                "metric_list": [{"metric": "exact_match"}],
            },
            metrics={"exact_match": "exact_match,stripped"},
        ),
    ]


def write_task(twin: Twin, folder: Path) -> None:
    (folder / twin.name).mkdir(parents=True, exist_ok=True)
    data = "".join(f"{json.dumps(row)}\n" for row in twin.rows).encode()
    (folder / twin.name / "items.jsonl").write_bytes(data)
    named = {"name": twin.name, "rows": "items.jsonl", "sha256": hashlib.sha256(data).hexdigest()}
    (folder / twin.name / "task.toml").write_text(tomli_w.dumps({**named, **twin.ours}))


# --- the models -------------------------------------------------------------------------------


def models(work: Path) -> Iterator[tuple[str, Path]]:
    """(name, transformers folder in float32) of each, made if it is not there."""
    tiny, real = work / "tiny-llama", work / "smollm2"
    if not (tiny / "config.json").is_file():
        write_tiny("llama", tiny)
        _round(tiny, tiny)
    yield "tiny-llama", tiny
    if not (real / "config.json").is_file():
        with open_source(str(fetch_sample(say=print)), say=print) as folder:
            _round(folder.path, real)
    yield "smollm2", real


def _round(source: Path, out: Path) -> None:
    """Write the model at `source` with weights that bfloat16 holds, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model.to(torch.bfloat16).to(torch.float32).save_pretrained(out)
    tokenizer.save_pretrained(out)


# --- the harness ------------------------------------------------------------------------------


def installed(folder: Path) -> Path:
    """A Python with the harness, which finds what it shares with this one here."""
    import transformers

    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        facts = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        site = subprocess.run(facts, check=True, capture_output=True, text=True).stdout.strip()
        shared = Path(transformers.__file__).parents[1]
        Path(site, "shared.pth").write_text(f"{shared}\n")
    subprocess.run([python, "-m", "pip", "install", "-q", HARNESS], check=True)
    return python


def harness(python: Path, model: Path, twins: Sequence[Twin], work: Path) -> dict[str, Any]:
    configured = [
        {
            "task": twin.name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(work / "tasks" / twin.name / "items.jsonl")}
            },
            "test_split": "test",
            **twin.theirs,
        }
        for twin in twins
    ]
    asked, answers = work / "tasks.json", work / f"{model.name}.json"
    asked.write_text(json.dumps(configured))
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    quiet = {"HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [python, SIDE, model, asked, answers]
    with answers.with_suffix(".log").open("w") as log:  # it talks a lot
        subprocess.run(command, check=True, env={**kept, **quiet}, stderr=log)
    found: dict[str, Any] = json.loads(answers.read_text())
    return found


# --- both -------------------------------------------------------------------------------------


def compare(
    model: str, twin: Twin, task: TaskData, replies: Sequence[Reply], theirs: dict[str, Any]
) -> bool:
    """Print how far apart the two are; whether that is rounding."""
    said = []
    good = len(replies) == len(theirs["items"])
    if task.kind == "generate":
        texts = [(reply.text or "").strip() for reply in replies]
        same = sum(a == b[0].strip() for a, b in zip(texts, theirs["items"], strict=True))
        said.append(f"{same} of {len(texts)} texts are the same")
        good &= same == len(texts)
    else:
        ours = [r.choices or (math.fsum(r.logprobs),) for r in replies]
        pairs = [
            (a, float(b))
            for one, other in zip(ours, theirs["items"], strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        worst = max(abs(a - b) for a, b in pairs)
        share = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
        said.append(
            f"{len(pairs)} log-likelihoods differ by at most {worst:.1e}, {share:.1e} of one"
        )
        good &= share < ROUNDING
    for metric, name in twin.metrics.items():
        measure = MEASURES[metric]
        score, other = measure.total(measure.statistics(replies, task)), theirs["metrics"][name]
        said.append(f"{metric} {score:.4f} and {other:.4f}")
        good &= math.isclose(score, other, rel_tol=1e-5, abs_tol=1e-9)
    print(f"{model:<11} {twin.name:<14} {'; '.join(said)}")
    return good


if __name__ == "__main__":
    main()
