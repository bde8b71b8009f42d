"""On CUDA: a student learns from an adapter on its own NF4 base, which is loaded once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from adapterhub.domain.recipe import Recipe
from adapterhub.models.loader import Base
from adapterhub.train.run import Trained, train_adapter
from tests.other_bases import MERGES, add_wide_base, store_lora


@pytest.fixture(scope="module")
def data(home: Path) -> Path:
    path = home / "few-rows.jsonl"
    rows = [{"prompt": f"repeat {n}", "completion": f"word{n}"} for n in range(16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def taught(base: Base, data: Path, out: Path, **more: Any) -> Trained:
    recipe = Recipe(base=base.spec.name, data=str(data), steps=12, learning_rate=1e-3)
    recipe = replace(recipe, trainer="distill", options={"rank": 4}, **more)
    return train_adapter(recipe, out, base=base, overwrite=True)


def test_a_teacher_on_the_students_base_takes_no_second_base(
    base: Base, data: Path, tmp_path: Path
) -> None:
    folder = store_lora(base, tmp_path / "teacher", seed=1, rank=64)
    before = torch.cuda.memory_allocated()
    for options in ({}, {"divergence": "js"}, {"cache": True, "samples": 256}):
        torch.cuda.reset_peak_memory_stats()
        run = taught(base, data, tmp_path / "out", teacher=str(folder), trainer_options=options)
        first, last = run.outcome.steps[0], run.outcome.steps[-1]
        peak = (torch.cuda.max_memory_allocated() - before) / 2**30
        print(f"{options}: {first.loss:.3f} -> {last.loss:.3f}, {peak:.2f} GiB beside the base")
        assert last.loss < first.loss
        assert torch.cuda.memory_allocated() - before < base.spec.stored_bytes / 4


def test_a_teacher_of_another_vocabulary_is_aligned(
    base: Base, home: Path, data: Path, tmp_path: Path
) -> None:
    add_wide_base(home, name="merging", merges=MERGES, heads=300)
    options = {"align": True}
    run = taught(base, data, tmp_path / "out", teacher_base="merging", trainer_options=options)
    assert run.outcome.steps[-1].loss < run.outcome.steps[0].loss
