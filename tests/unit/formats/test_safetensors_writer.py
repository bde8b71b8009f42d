"""A file that is written tensor by tensor is one that everybody reads."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from adapterhub.formats.safetensors_header import read_header
from adapterhub.formats.safetensors_writer import SafetensorsWriter


def numbers(count: int) -> bytes:
    return struct.pack(f"<{count}f", *range(count))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Smaller tensors than announced, and one that never came."""
    path = tmp_path / "adapter_model.safetensors"
    most = {"a": (64, 8), "b": (8, 64), "c": (1000, 1000)}
    with path.open("xb") as file:
        writer = SafetensorsWriter(file, {n: ("float32", shape) for n, shape in most.items()})
        writer.add("b", (8, 3), numbers(24))
        writer.add("a", (3, 8), numbers(24))
        writer.finish()
    return path


def test_the_header_says_what_came(path: Path) -> None:
    header = read_header(path)
    assert {name: info.shape for name, info in header.tensors.items()} == {"b": (8, 3), "a": (3, 8)}
    assert header.metadata == {"format": "pt"}
    assert header.data_start % 8 == 0
    assert path.stat().st_size == header.data_start + 2 * 96


@pytest.mark.models
def test_the_library_reads_the_values(path: Path) -> None:
    load = pytest.importorskip("safetensors.torch").load_file
    state = load(path)
    assert state["a"].flatten().tolist() == list(range(24))
    assert state["b"].shape == (8, 3)


def test_bytes_that_do_not_fit_the_shape_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "x").open("xb") as file:
        writer = SafetensorsWriter(file, {"a": ("float32", (2, 2))})
        with pytest.raises(ValueError, match="12 bytes"):
            writer.add("a", (2, 2), bytes(12))


def test_a_tensor_larger_than_announced_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "x").open("xb") as file:
        writer = SafetensorsWriter(file, {"a": ("float32", (1, 1))})
        writer.add("a", (1000, 1), numbers(1000))
        with pytest.raises(ValueError, match="larger than was announced"):
            writer.finish()
