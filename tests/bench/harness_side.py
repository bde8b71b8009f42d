"""lm-evaluation-harness's side of `tests.bench.harness`, run by the Python that has it.

    python harness_side.py MODEL TASKS.json ANSWERS.json

TASKS.json holds task configurations as the harness takes them; ANSWERS.json gets, by task, its
metrics and by item what the model answered: log-likelihoods, or text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM


def answered(sample: dict[str, Any]) -> list[Any]:
    """Of one item: a log-likelihood for each of its requests, or what was written after filters."""
    if isinstance(sample["filtered_resps"][0], str):
        return list(sample["filtered_resps"])
    first = [response[0] for response in sample["resps"]]
    return [each[0] if isinstance(each, (list, tuple)) else each for each in first]


def main(model: str, tasks: str, out: str) -> None:
    engine = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=1)
    found = simple_evaluate(
        model=engine, tasks=json.loads(Path(tasks).read_text()), bootstrap_iters=0
    )
    answers = {
        name: {
            "metrics": found["results"][name],
            "items": [answered(s) for s in sorted(samples, key=lambda s: int(s["doc_id"]))],
        }
        for name, samples in found["samples"].items()
    }
    Path(out).write_text(json.dumps(answers, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
