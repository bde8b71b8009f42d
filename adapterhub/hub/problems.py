"""What verification found, as values.

Knows no adapter and no rule.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule: a kebab-case code for machines, a fact and a next move for people."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Report:
    """Every problem found, and what is known besides. No problem found is no proof of none."""

    ok: bool
    problems: tuple[Problem, ...]
    facts: dict[str, Any]


def few(names: Collection[str]) -> str:
    """`a, b, c and 5 more`, in the order given."""
    shown = ", ".join(list(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
