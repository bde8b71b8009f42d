"""Read a method's options, which come from a command line or a recipe's file and can be anything.

Knows kinds and limits; what an option means is its method's business. Each function raises
UsageError naming the option.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapterhub.errors import UsageError

Options = Mapping[str, Any]

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_LAYERS_HINT = 'block numbers from 0, such as "0-3,8" or [0, 1, 2, 3, 8]'


def refuse_unknown(method: str, options: Options, known: Iterable[str]) -> None:
    """`known` may well be the record's own `options`."""
    names = sorted(known)
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise UsageError(
            f"{method} has no option {unknown[0]!r}",
            hint=f"its options: {', '.join(names) or 'none'}; see `adapterhub methods {method}`",
        )


def whole(options: Options, name: str, default: int, *, least: int, most: int) -> int:
    value = options.get(name, default)
    if type(value) is not int:
        raise UsageError(f"{name} {value!r} is not a whole number", hint=f"{default} is usual")
    if not least <= value <= most:
        raise UsageError(f"{name} {value} is out of range", hint=f"use {least} to {most}")
    return value


def number(
    options: Options, name: str, default: float, *, least: float, below: float = math.inf
) -> float:
    value = options.get(name, default)
    if type(value) not in (int, float):
        raise UsageError(f"{name} {value!r} is not a number", hint=f"{default:g} is usual")
    if not (math.isfinite(value) and least <= value < below):
        limit = f"{least:g} or more" + ("" if below == math.inf else f", and less than {below:g}")
        raise UsageError(f"{name} {value:g} is out of range", hint=f"use {limit}")
    return float(value)


def flag(options: Options, name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise UsageError(f"{name} {value!r} is neither true nor false", hint="use true or false")
    return value


def choice(options: Options, name: str, default: str, choices: Sequence[str]) -> str:
    value = options.get(name, default)
    if value not in choices:
        raise UsageError(f"{name} {value!r} is unknown", hint=f"one of {', '.join(choices)}")
    return str(value)


def layer_numbers(options: Options, name: str = "layers") -> tuple[int, ...] | None:
    """Which blocks, in rising order; None, the default, means all of them."""
    value = options.get(name)
    if value is None:
        return None
    found = _spelled(value) if isinstance(value, str) else _listed(value)
    if not found:
        raise UsageError(f"{name} {value!r} names no layers", hint=_LAYERS_HINT)
    return tuple(sorted(found))


def _spelled(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            return set()
        first, last = int(match[1]), int(match[2] or match[1])
        found.update(range(first, last + 1))
    return found


def _listed(value: Any) -> set[int]:
    numbers = value if isinstance(value, list | tuple) else [value]
    good = all(type(number) is int and 0 <= number < 100_000 for number in numbers)
    return set(numbers) if good else set()
