"""Rules for one value of a config: each returns what is wrong with it, or None.

Knows kinds and limits of values; which key has which rule stands in `adapter_config`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Rule = Callable[[Any], str | None]

MAX_ITEMS = 20_000
_TRUSTED = ("transformers", "peft", "diffusers")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_VERBOSE = re.compile(r"\(\?[aiLmsu]*x")  # lets white space stand between a group and its star
# In turn: an escape, the ? of a special group, and a repetition with the mark that makes it lazy.
_TOKEN = re.compile(r"\\.|\(\?|([*+?]|\{\d*,\d*\})[?+]?|[(|)]")
_MAX_REPETITIONS = 6
_MAX_CHOICES = 1 << 20


def nullable(rule: Rule) -> Rule:
    return lambda value: None if value is None else rule(value)


def either(*options: Rule) -> Rule:
    def check(value: Any) -> str | None:
        problems = [rule(value) for rule in options]
        return None if None in problems else " or ".join(filter(None, problems))

    return check


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def text(longest: int) -> Rule:
    """Printable text, so neither NUL nor an escape sequence."""

    def check(value: Any) -> str | None:
        if isinstance(value, str) and len(value) <= longest and value.isprintable():
            return None
        return f"must be printable text of up to {longest} characters"

    return check


def one_of(*words: str) -> Rule:
    return lambda value: None if value in words else f"must be {' or '.join(words)}"


def whole(least: int, most: int) -> Rule:
    def check(value: Any) -> str | None:
        fits = type(value) is int and least <= value <= most
        return None if fits else f"must be a whole number in {least}..{most}"

    return check


def number(*, most: float, above: float = -math.inf, least: float = -math.inf) -> Rule:
    def check(value: Any) -> str | None:
        fits = type(value) in (int, float) and above < value and least <= value <= most
        low = f"above {above:g}" if least == -math.inf else f"from {least:g}"
        return None if fits else f"must be a number {low} to {most:g}"

    return check


def listing(rule: Rule) -> Rule:
    def check(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            return f"must be a list of up to {MAX_ITEMS:,}"
        return next(filter(None, map(rule, value)), None)

    return check


def modules(value: Any) -> str | None:
    """Names in a list, or one regular expression."""
    if isinstance(value, str):
        return pattern(value)
    return listing(text(512))(value)


def patterns(rule: Rule) -> Rule:
    """An object from patterns of module names to values."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            return f"must be an object of up to {MAX_ITEMS:,} entries"
        problems = (pattern(key) or rule(item) for key, item in value.items())
        return next(filter(None, problems), None)

    return check


def pattern(value: str) -> str | None:
    """A regular expression that cannot take forever: no repeated group, few repetitions."""
    if text(2000)(value):
        return "must be a printable pattern of up to 2,000 characters"
    if (
        _REPEATED_GROUP.search(value)
        or _VERBOSE.search(value)
        or repetitions(value) > _MAX_REPETITIONS
        or _choices(value) > _MAX_CHOICES
    ):
        return "is a pattern that could take forever to match"
    try:
        re.compile(value)
        re.compile(f"({value})")  # as peft wraps it
    except (re.error, OverflowError, RecursionError):
        return "is not a regular expression"
    return None


def repetitions(pattern: str) -> int:
    """How many repetitions can be of several lengths: the power with which a failing match grows.

    Those inside of brackets count too, though they are none: rather one too many.
    """
    return sum(found[1] is not None for found in _TOKEN.finditer(pattern))


def _choices(pattern: str) -> int:
    """In how many ways the alternatives of all groups combine, at most."""
    total, groups = 1, [1]
    for token in (found[0] for found in _TOKEN.finditer(pattern)):
        if token.startswith("("):
            groups.append(1)
        elif token == "|":
            groups[-1] += 1
        elif token == ")" and len(groups) > 1:
            total *= groups.pop()
    return total * groups[0]


def table(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be an object"
    return anything(value)


def anything(value: Any) -> str | None:
    """Any JSON of reasonable size; depth was limited when it was parsed."""
    if isinstance(value, str):
        return None if len(value) <= 100_000 else "is too long a text"
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, list):
        return None
    return (
        "is too long" if len(items) > MAX_ITEMS else next(filter(None, map(anything, items)), None)
    )


def auto_mapping(value: Any) -> str | None:
    """peft's record of the base's class; what it names is Python that some loaders would import."""
    if not isinstance(value, dict):
        return "must be an object"
    for key, item in value.items():
        if key == "parent_library":
            if not isinstance(item, str) or item.split(".")[0] not in _TRUSTED:
                return f"names {str(item)[:60]!r}, which is none of {', '.join(_TRUSTED)}"
        elif key == "base_model_class":
            if not isinstance(item, str) or not item.isidentifier():
                return "names no class"
        elif not isinstance(item, bool):
            return f"has the unknown entry {key[:60]!r}"
    return None
