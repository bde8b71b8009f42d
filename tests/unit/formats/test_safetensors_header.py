"""Promises of the safetensors pre-check and of the scan for NaN and zeros."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.errors import FormatError
from adapterhub.formats import tensor_scan
from adapterhub.formats.safetensors_header import (
    find_nonfinite,
    find_zero,
    header_length,
    parse_header,
    read_header,
)
from tests.adapter_files import Tensor, f32, safetensors, with_header

GOOD = {"a": f32((2, 3)), "b": f32((4,))}


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.write_bytes(safetensors(tensors))
    return path


def entry(**changes: Any) -> bytes:
    plain = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return json.dumps({"t": plain | changes}).encode()


def test_a_good_header_is_read_without_the_data(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "w.safetensors", GOOD))
    assert header.tensors["a"].shape == (2, 3)
    assert (header.tensors["b"].start, header.tensors["b"].end) == (24, 40)
    assert header.data_start + 40 == header.size


def test_a_header_fetched_by_range_reads_as_the_file_does(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", GOOD)
    data = path.read_bytes()
    needed = header_length(data[:64], len(data), name="w")
    assert parse_header(data[:needed], len(data), name="w") == read_header(path)


def test_metadata_is_kept_and_tensors_come_in_file_order() -> None:
    data = safetensors({"z": f32((1,)), "a": f32((1,))}, {"format": "pt"})
    header = parse_header(data, len(data), name="w")
    assert list(header.tensors) == ["z", "a"]
    assert header.metadata == {"format": "pt"}


TWICE = b'{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":0}'
GAP = b'{"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'
OVERLAP = (
    b'{"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    b'"u":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}'
)


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (with_header(TWICE, b"x"), "'t' twice"),
        (with_header(GAP, b"xx"), "gap"),
        (with_header(OVERLAP, b"xxx"), "overlaps"),
        (with_header(entry(), b"x" * 7), "cut short"),
        (with_header(entry(), b"x" * 9), "goes on"),
        (with_header(entry(shape=[3]), b"x" * 8), "8 bytes for shape"),
        (with_header(entry(shape=[0], data_offsets=[0, 0])), "no size"),
        (with_header(entry(shape=[True]), b"x" * 8), "no size"),
        (with_header(entry(shape=[-2]), b"x" * 8), "no size"),
        (with_header(entry(shape=[2**63, 2**63])), "bytes for shape"),
        (with_header(entry(dtype="F128"), b"x" * 8), "dtype"),
        (with_header(entry(dtype=["F32"]), b"x" * 8), "dtype"),
        (with_header(entry(data_offsets=[8, 0]), b"x" * 8), "bytes for shape"),
        (with_header(entry(data_offsets=[0]), b"x" * 8), "offsets"),
        (with_header(entry(extra=1), b"x" * 8), "alone"),
        (with_header(b'{"t": 1}'), "alone"),
        (with_header(b'{"a\\u0000": {}}'), "printable"),
        (with_header(b'{"__metadata__": {"a": 1}}'), "metadata"),
        (with_header(b"[]"), "not an object"),
        (with_header(b"{}"), "0 tensors"),
        (with_header(b"{" * 100), "32 levels"),
        (struct.pack("<Q", 2**63) + b"{}", "header of"),
        (struct.pack("<Q", 100) + b"{}", "ends inside"),
        (b"\x00\x01", "too short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>404", "HTML page"),
        (b"PK\x03\x04" + b"\0" * 20, "pickle"),
        (b"\x80\x02}q\x00" + b"\0" * 20, "pickle"),
        (b"\x80\x04\x95q\x00" + b"\0" * 20, "pickle"),
    ],
)
def test_a_hostile_or_broken_file_is_refused_by_name(
    tmp_path: Path, data: bytes, fact: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=fact) as caught:
        read_header(path)
    assert "w.safetensors" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x4B50, 0x3C3C, 0x2020])
def test_a_length_that_looks_like_something_else_is_a_length(length: int) -> None:
    plain = safetensors(GOOD, {"padding": ""})
    header = plain[8 : 8 + int.from_bytes(plain[:8], "little")].rstrip()
    padding = "x" * (length - len(header))
    data = safetensors(GOOD, {"padding": padding})
    data = with_header(data[8 : 8 + length]) + data[-40:]
    assert int.from_bytes(data[:8], "little") == length
    assert set(parse_header(data, len(data), name="w").tensors) == {"a", "b"}


def test_too_many_tensors_are_refused() -> None:
    body = {
        f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(50_001)
    }
    data = with_header(json.dumps(body).encode())
    with pytest.raises(FormatError, match="50,001 tensors"):
        parse_header(data, len(data) + 50_001, name="w")


HALF = {"F16": ("<e", 2), "F32": ("<f", 4), "F64": ("<d", 8)}


def packed(dtype: str, values: list[float]) -> bytes:
    if dtype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    code = HALF[dtype][0]
    return b"".join(struct.pack(code, value) for value in values)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -float("nan")])
def test_one_bad_value_anywhere_is_found(tmp_path: Path, dtype: str, bad: float) -> None:
    values = [random.Random(0).uniform(-1, 1) for _ in range(101)]
    tensors: dict[str, Tensor] = {"fine": (dtype, (101,), packed(dtype, values))}
    for place in (0, 50, 100):
        broken = [*values[:place], bad, *values[place + 1 :]]
        tensors[f"bad{place}"] = (dtype, (101,), packed(dtype, broken))
    path = write(tmp_path / "w", tensors)
    assert find_nonfinite(path, read_header(path)) == ["bad0", "bad50", "bad100"]


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("F32", struct.pack("<4f", 3.4e38, -3.4e38, 1e-45, 0.0)),
        ("F16", struct.pack("<4e", 65504, -65504, 6e-8, -0.0)),
        ("BF16", b"\x7f\x7f\x7f\xff\x00\x7f\x80\x7e"),
        ("F64", struct.pack("<2d", 1.7e308, -1.7e308)),
        ("F8_E4M3", bytes(range(127))),
        ("F8_E5M2", bytes(range(0x7C))),
        ("I32", b"\xff" * 16),
        ("U8", b"\x7f\xff"),
    ],
)
def test_the_largest_finite_values_are_finite(tmp_path: Path, dtype: str, data: bytes) -> None:
    size = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I32": 4}.get(dtype, 1)
    path = write(tmp_path / "w", {"t": (dtype, (len(data) // size,), data)})
    assert find_nonfinite(path, read_header(path)) == []


@pytest.mark.parametrize(
    ("dtype", "byte"), [("F8_E4M3", 0x7F), ("F8_E4M3", 0xFF), ("F8_E5M2", 0xFC)]
)
def test_bad_values_of_eight_bits_are_found(tmp_path: Path, dtype: str, byte: int) -> None:
    path = write(tmp_path / "w", {"t": (dtype, (2,), bytes([0, byte]))})
    assert find_nonfinite(path, read_header(path)) == ["t"]


def test_zero_and_minus_zero_are_zero_and_nothing_else_is(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "zero": f32((9,), 0.0),
        "minus": f32((9,), -0.0),
        "mixed": ("F32", (2,), struct.pack("<2f", 0.0, -0.0)),
        "tiny": ("F32", (2,), struct.pack("<2f", 0.0, 1e-45)),
        "low byte": ("F32", (1,), b"\x80\x00\x00\x00"),
        "half": ("BF16", (2,), b"\x00\x80\x00\x00"),
        "integer": ("I8", (1,), b"\x80"),
    }
    path = write(tmp_path / "w", tensors)
    assert find_zero(path, read_header(path)) == ["zero", "minus", "mixed", "half"]


def test_tensors_longer_than_a_chunk_are_read_to_their_end(tmp_path: Path) -> None:
    length = tensor_scan.CHUNK // 4 + 10
    zeros = bytes(4 * length)
    tensors: dict[str, Tensor] = {
        "zero": ("F32", (length,), zeros),
        "one": ("F32", (length,), zeros[:-4] + struct.pack("<f", 1.0)),
        "nan": ("F32", (length,), zeros[:-4] + struct.pack("<f", float("nan"))),
    }
    path = write(tmp_path / "w", tensors)
    header = read_header(path)
    assert find_zero(path, header) == ["zero"]
    assert find_nonfinite(path, header) == ["nan"]


def check_mutation(data: bytes, place: int, byte: int) -> None:
    changed = bytearray(data)
    changed[place % len(data)] = byte
    with contextlib.suppress(FormatError):
        parse_header(bytes(changed), len(data), name="w")


PLACES = st.integers(0, 10_000)


@settings(max_examples=100, deadline=None)
@given(PLACES, st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, byte: int) -> None:
    check_mutation(safetensors(GOOD), place, byte)


@pytest.mark.long
@settings(max_examples=20_000, deadline=None)
@given(PLACES, st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(place: int, byte: int) -> None:
    check_mutation(safetensors(GOOD), place, byte)


@pytest.mark.long
@settings(max_examples=3000, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_the_scan_agrees_with_mathematics(tmp_path_factory: Any, values: list[float]) -> None:
    data = struct.pack(f"<{len(values)}f", *values)
    path = write(tmp_path_factory.mktemp("w") / "w", {"t": ("F32", (len(values),), data)})
    finite = all(abs(value) < float("inf") for value in values)
    header = read_header(path)
    assert (find_nonfinite(path, header) == []) == finite
    assert (find_zero(path, header) == ["t"]) == all(value == 0.0 for value in values)
