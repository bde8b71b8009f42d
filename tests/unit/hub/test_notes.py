"""What is odd is said, what is usual is not, and numbers that are no floats are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.hub.notes import config_notes
from adapterhub.hub.verify import verify_folder
from tests.adapter_files import PREFIX, f32, lora_tensors, write_lora


def notes(folder: Path) -> list[str]:
    report = verify_folder(folder)
    assert report.ok
    found: list[str] = report.facts.get("notes", [])
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alpha_pattern": {"k_proj": 8}}, "alpha_pattern names no module of the file: k_proj"),
        ({"rank_pattern": {"k_proj": 8}}, "rank_pattern names no module of the file: k_proj"),
        ({"bias": "all"}, "bias is 'all', and the file has none"),
    ],
)
def test_an_oddity_is_said_and_not_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (found,) = notes(write_lora(tmp_path, **changes))
    assert said in found


@pytest.mark.parametrize(
    "changes", [{}, {"alpha_pattern": {"q_proj": 8}}, {"alpha_pattern": {r".*\.1\..*": 8}}]
)
def test_what_is_usual_is_not_said(changes: dict[str, Any], tmp_path: Path) -> None:
    assert notes(write_lora(tmp_path, **changes)) == []


@pytest.mark.parametrize(
    ("turned", "family", "count"),
    [(True, "llama", 1), (False, "llama", 0), (True, "gpt2", 0), (False, "gpt2", 1),
     (None, "gpt2", 0), (True, None, 0)],
)  # fmt: skip
def test_the_orientation_of_layers_is_that_of_the_family(
    turned: bool | None, family: str | None, count: int
) -> None:
    assert len(list(config_notes({"fan_in_fan_out": turned}, family))) == count


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I32"])
def test_a_lora_of_coarse_or_whole_numbers_is_refused(dtype: str, tmp_path: Path) -> None:
    width = {"F8_E4M3": 1, "I32": 4}[dtype]
    tensors = {
        name: (dtype, shape, data[: len(data) * width // 4])
        for name, (_, shape, data) in lora_tensors().items()
    }
    report = verify_folder(write_lora(tmp_path, tensors=tensors))
    assert [problem.code for problem in report.problems] == ["odd-dtype"]
    assert f"4 tensors are {dtype}" in report.problems[0].message


def test_an_index_beside_the_weights_may_be_whole(tmp_path: Path) -> None:
    index = {
        f"{PREFIX}lm_head.index": ("I64", (2,), bytes(16)),
        f"{PREFIX}lm_head.weight": f32((4,)),
    }
    folder = write_lora(tmp_path, tensors=lora_tensors() | index, modules_to_save=["lm_head"])
    assert verify_folder(folder).ok
