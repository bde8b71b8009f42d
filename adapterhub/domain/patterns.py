"""Which of a config's patterns is about a module: the rule of peft 0.21 for rank and alpha.

Sees texts only, and tries whatever pattern it is given; its caller knows which are too costly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")
_PLAIN = re.compile(r"[\w.-]+")


def value_for(name: str, patterns: Mapping[str, T] | None, default: T) -> T:
    """The value of the first pattern for this module, in the order of the file."""
    key = matching_key(name, patterns or {})
    return default if key is None or patterns is None else patterns[key]


def matching_key(name: str, keys: Iterable[str]) -> str | None:
    """The first key that is a regular expression for the name or for its end after a dot."""
    return next((key for key in keys if _matches(name, key)), None)


def is_plain(key: str) -> bool:
    """Whether the key is an ordinary name, which costs nothing to match."""
    return _PLAIN.fullmatch(key) is not None


def _matches(name: str, key: str) -> bool:
    if not is_plain(key):
        return re.match(rf"(.*\.)?({key})$", name) is not None
    start = len(name) - len(key)
    if start < 0 or (start > 0 and name[start - 1] != "."):
        return False
    # A dot of the key is a pattern for any character, in peft as here.
    return all(wanted in (".", found) for wanted, found in zip(key, name[start:], strict=True))
