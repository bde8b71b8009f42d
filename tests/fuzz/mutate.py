"""Make hostile bytes of good ones: at the level of bytes, and of JSON where they are JSON.

Knows no format of ours; the same `Random` gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

TOKENS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n---\n",
    b"...\n",
    b"\x1b[2J",
    b"\xed\xa0\x80",
    b"\\ud800",
    "\u202e".encode(),
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"1e-400",
    b"18446744073709551616",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[" * 300,
    b"x = " + b"[" * 3000,
    b'{"a":' * 300,
    b"]" * 300,
    b'"',
    b'\\"',
    b"'''",
    b'"""',
    b"&a [*a,*a]",
    b"*a",
    b"!!python/object/apply:os.system [id]",
    b"<<: *a",
    b"a: " * 200,
    b"- " * 400,
    b"? " * 200,
    b"#",
    b"0x10",
    b"1_000",
    b"1979-05-27",
    b"[[terms]]",
    b"(a+)+$",
    b".*" * 20,
    b"(?i)",
    b"../" * 40,
    b"/etc/passwd",
    b"C:\\",
    b"con",
    b"aux.txt",
    b".git",
    b"@",
    b":",
    b"+",
    b"*",
    b"--",
    b"..",
    b"a" * 5000,
    "é".encode() * 100,
    "e\u0301".encode() * 100,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64 - 1,
    10**9,
    0.5,
    -0.0,
    1e308,
    "",
    "a",
    "\x00",
    "\x1b[31m",
    "../../etc",
    "LORA",
    "os",
    "x" * 5000,
    ".*" * 12,
    "(a|a)" * 20 + "b",
    "(",
    [],
    {},
    [[]],
    [0] * 3000,
    {"a": 1},
    {"parent_library": "os", "base_model_class": "system"},
    [[1, 2], [3]],
    ["q_proj", 3],
    {"": ""},
)


def mutated(good: Sequence[bytes], random: Random, *, most: int = 200_000) -> bytes:
    """One of the good inputs after one to six changes, at most `most` bytes of it."""
    data = random.choice(good)
    if random.random() < 0.4:
        data = _as_json(data, random)
    for _ in range(random.randrange(0, 6)):
        data = random.choice(_CHANGES)(data, random)
    if random.random() < 0.1:
        other = random.choice(good)
        data = data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]
    return data[:most]


def _as_json(data: bytes, random: Random) -> bytes:
    """A value changed, a key renamed, doubled or taken away somewhere; unchanged if no JSON.

    Eight bytes of length before it, as safetensors has them, are written anew.
    """
    framed = data[8:9] == b"{"
    size = int.from_bytes(data[:8], "little") if framed else len(data)
    start = 8 if framed else 0
    try:
        value = json.loads(data[start : start + size])
    except (ValueError, RecursionError):
        return data
    text = json.dumps(_changed(value, random)).encode()
    if framed:
        return len(text).to_bytes(8, "little") + text + data[8 + size :]
    return text


def _changed(value: Any, random: Random) -> Any:
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return random.choice(VALUES)
    if isinstance(value, list):
        at = random.randrange(len(value))
        return [*value[:at], _changed(value[at], random), *value[at + 1 :]]
    key = random.choice(list(value))
    kind = random.random()
    if kind < 0.1:
        return {name: item for name, item in value.items() if name != key}
    if kind < 0.2:
        return {**value, random.choice(("colour", "", key.upper(), "\x00", "a" * 600)): value[key]}
    return {**value, key: _changed(value[key], random)}


def _place(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 2, 8, 40, 400)))


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(TOKENS) + data[at:]


def _replace(data: bytes, random: Random) -> bytes:
    start, end = _place(data, random)
    return data[:start] + random.choice(TOKENS) + data[end:]


def _remove(data: bytes, random: Random) -> bytes:
    start, end = _place(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _place(data, random)
    times = random.choice((2, 3, 50, 2000))
    return data[:start] + data[start:end] * times + data[end:]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _noise(data: bytes, random: Random) -> bytes:
    start, end = _place(data, random)
    return data[:start] + random.randbytes(end - start) + data[end:]


_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _insert,
    _insert,
    _replace,
    _remove,
    _repeat,
    _cut,
    _noise,
)
