"""A training recipe as TOML, and back; and what of it is for everybody to read.

The file holds every field, defaults included, so that it means the same to later releases. Knows
texts that look like places; whether anything lies there is not asked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import tomli_w

from adapterhub.domain.recipe import Recipe
from adapterhub.errors import FormatError
from adapterhub.formats.schema import to_domain

RECIPE_FILE = "recipe.toml"
MAX_BYTES = 1_000_000
_HINT = "mend the line it names, or train anew"
# The folders before the last name of a path, in a term such as 0.5*/home/me/my clients/one.
_PLACE = re.compile(
    r"(?:^|(?<=[*\s=,:;'\"(\[]))(?:file:/{2})?"
    r"(?:(?:~[^/\\\s]{0,64}|\.{1,2})?/(?!/)(?:\S.*/)?|[A-Za-z]:[/\\](?:.*[/\\])?|\\\\.*\\)"
)
# Three names or more are a path, unless they belong to a remote: `team:me/one` has two.
# Begun only where a name begins, so that a long text without any costs one pass.
_DEEP = re.compile(r"(?<![^\s:@*/])[^\s:@*/]++/[^\s:@*/]++/[^\s:@*]+")


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """Every field by name, as plain values, but for those that name nothing."""
    table = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return {name: value for name, value in table.items() if value is not None}


def encode_recipe(recipe: Recipe) -> bytes:
    return tomli_w.dumps(recipe_table(recipe)).encode()


def decode_recipe(
    data: bytes,
    *,
    name: str = RECIPE_FILE,
    complete: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda table: table,
) -> Recipe:
    """`complete` may fill in what a file that was written by hand leaves out.

    Raises FormatError naming the field, UsageError for a number no run can have.
    """
    return to_domain(complete(_table(data, name)), Recipe, name=name)


def published_recipe(data: bytes, *, name: str = RECIPE_FILE) -> bytes:
    """A recipe's file for everybody to read. Raises FormatError for what is no TOML."""
    return tomli_w.dumps(published_table(_table(data, name))).encode()


def published_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe by names alone. Where files lie is the author's own business; what was in them is in
    the manifest's digests."""
    made: dict[str, Any] = without_places(table)
    for name in ("data", "eval_data"):
        if isinstance(made.get(name), str):
            made[name] = _last_name(table[name])
    return made


def without_places(value: Any) -> Any:
    """Each path in it, wherever it is nested, by its last name alone; so are the keys of tables."""
    if isinstance(value, str):
        return "+".join(_without_place(term) for term in value.split("+"))
    if isinstance(value, Mapping):
        return {without_places(key): without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    return value


def _without_place(term: str) -> str:
    kept = term.rstrip("/\\ ") if _PLACE.search(term) else term
    return _DEEP.sub(lambda match: _last_name(match[0]), _PLACE.sub("", kept))


def _last_name(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _table(data: bytes, name: str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"{name} has {len(data):,} bytes, the limit is {MAX_BYTES:,}", hint="shorten it"
        )
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise FormatError(f"{name} is not TOML: {error}", hint=_HINT) from error
    except RecursionError:
        raise FormatError(f"{name} is nested too deep", hint=_HINT) from None
