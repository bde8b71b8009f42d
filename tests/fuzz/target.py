"""What the fuzzers work on: a reader, and bytes that it accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """`read` takes any bytes; `good` are some that it accepts."""

    good: tuple[bytes, ...]
    read: Callable[[bytes], Any]
