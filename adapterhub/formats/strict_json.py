"""Parse JSON that a stranger wrote, refusing whatever two parsers could read differently.

Knows limits and duplicate keys; what the document is for is its caller's business.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from adapterhub.errors import FormatError

_HINT = "fetch the file again, or ask its author to write it anew"
# The closing quote is optional so that an unterminated string costs one pass, not one per quote.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def loads_strict(data: bytes, *, name: str, max_bytes: int = 1_000_000, max_depth: int = 32) -> Any:
    """The value of a JSON document in UTF-8. `name` is the file an error is about.

    Raises FormatError for too large or too deep a document, bad UTF-8 or lone surrogates, duplicate
    keys, NaN and infinities, and integers of more than 64 bits.
    """
    if len(data) > max_bytes:
        raise FormatError(f"{name} has {len(data):,} bytes, the limit is {max_bytes:,}", hint=_HINT)
    text = _decode(data, name)
    _check_depth(data, name, max_depth)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise FormatError(f"{name} is not JSON: {error.msg} at {where}", hint=_HINT) from None
    except _RefusedError as refused:
        raise FormatError(f"{name} {refused}", hint=_HINT) from None
    if b"\\ud" in data.lower():
        _check_surrogates(value, name)
    return value


class _RefusedError(ValueError):
    """A rule was broken deep inside the parser, which does not know the file's name."""


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{name} is not UTF-8 at byte {error.start:,}", hint=_HINT) from None


def _check_depth(data: bytes, name: str, max_depth: int) -> None:
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > max_depth:
            raise FormatError(f"{name} nests more than {max_depth} levels deep", hint=_HINT)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedError(f"has the key {_repeated(pairs)[:80]!r} twice")
    return found


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    return key


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise _RefusedError(f"has a number beyond 64 bits: {digits[:24]}...")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"has a number that is not finite: {digits[:24]}")
    return value


def _constant(word: str) -> NoReturn:
    raise _RefusedError(f"has a number that is not finite: {word}")


def _check_surrogates(value: Any, name: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise FormatError(f"{name} has half a character (a surrogate)", hint=_HINT) from None
