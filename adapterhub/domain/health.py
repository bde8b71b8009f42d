"""One thing that a machine has, lacks or has broken, as `adapterhub doctor` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "absent", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """`broken` is what something needs and cannot have; `note` is worth knowing, and `absent` an
    optional part that is not there. `hint` is the next move."""

    name: str
    state: State
    found: str
    hint: str | None = None
