"""Tensors over files: none too large, none lost, each where its type may begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.models.shards import Entry, split, write_shards


def entry(name: str, size: int, dtype: str = "bfloat16") -> Entry:
    return Entry(name=name, shape=(size,), dtype=dtype)


def test_a_file_holds_no_more_than_it_may_unless_one_tensor_does() -> None:
    entries = [entry("a", 3), entry("b", 2), entry("big", 9), entry("c", 1), entry("d", 4)]
    files = split(entries, most=10)
    assert [[one.name for one in file] for file in files] == [["a", "b"], ["big"], ["c", "d"]]


def test_wider_types_come_first_within_a_file() -> None:
    file = split([entry("half", 1), entry("whole", 1, "float32")])[0]
    assert [one.name for one in file] == ["whole", "half"]


@pytest.mark.models
@pytest.mark.parametrize("most", [8, 1000])
def test_what_is_written_is_what_was_read(most: int, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    values = {"half": torch.tensor([1.5]), "whole": torch.tensor([[0.1, 0.2], [0.3, 0.4]])}
    entries = [entry("half", 1), Entry(name="whole", shape=(2, 2), dtype="float32")]
    heard: list[str] = []
    size = write_shards(
        tmp_path, entries, values.__getitem__, most=most, on_tensor=lambda e: heard.append(e.name)
    )
    found: dict[str, torch.Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        found |= load_file(file)
    assert size == 18
    assert sorted(heard) == ["half", "whole"]
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "half": torch.bfloat16, "whole": torch.float32
    }  # fmt: skip
    assert all(torch.equal(found[name].float(), value) for name, value in values.items())
    assert (tmp_path / "model.safetensors.index.json").exists() == (most == 8)
