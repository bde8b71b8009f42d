"""Turn plain data into the domain's frozen values and back, strictly.

Knows dataclasses in general and no file format; msgspec does the typing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from adapterhub.errors import FormatError

T = TypeVar("T")
# Controls and line ends, and what turns the direction of a text: all could forge what is shown.
FORGING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def to_domain(value: Any, kind: type[T], *, name: str) -> T:
    """A `kind` from parsed data. Raises FormatError naming the file and the field."""
    for path, text in _strings(value, ""):
        if FORGING.search(text):
            raise _bad(name, path, "control characters, by which a screen could be made to lie")
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        fact, _, path = str(error).partition(" - at ")
        raise _bad(name, path.strip("`").removeprefix("$"), _lower(fact)) from None
    for path in _unknown(value, msgspec.to_builtins(made), ""):
        raise _bad(name, path, "unknown field")
    return made


def to_plain(value: Any) -> Any:
    """Dicts and lists of a value; fields that are None are left out, for None means unknown."""
    if dataclasses.is_dataclass(value):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {key: to_plain(item) for key, item in items if item is not None}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def _bad(name: str, path: str, fact: str) -> FormatError:
    field = path.removeprefix(".") or "the document"
    return FormatError(
        f"{name}: {field}: {fact}", hint=f"correct {field!r}, or upgrade adapterhub if it is newer"
    )


def _lower(fact: str) -> str:
    return fact[:1].lower() + fact[1:]


def _unknown(given: Any, kept: Any, path: str) -> Iterator[str]:
    """Paths of what conversion dropped: msgspec ignores unknown keys of dataclasses."""
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        for key, value in given.items():
            if key in kept:
                yield from _unknown(value, kept[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(kept, (list, tuple)):
        for index, (left, right) in enumerate(zip(given, kept, strict=True)):
            yield from _unknown(left, right, f"{path}[{index}]")


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield path, key
            yield from _strings(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]")
