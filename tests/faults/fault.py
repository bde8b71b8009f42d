"""What a planted fault is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.faults.draft import Draft

# How the adapter is taken into use: loaded; loaded beside another one that is active; loaded by
# name and then set active; attached, with its slot left asleep; or named as a composition.
Use = Literal["load", "beside", "by-name", "asleep", "compose"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`says` is a pattern that what we say must match, and what we say of the sound adapter must
    not. `start` is the sound adapter of `ground`, `base` the one it is used on. `measured` marks
    those that were planted in peft first; `probe` those that no file shows, only a replay."""

    name: str
    says: str
    plant: Callable[[Draft], object] = lambda _: None
    start: str = "lora"
    base: str = "tiny"
    use: Use = "load"
    measured: bool = False
    probe: bool = False
