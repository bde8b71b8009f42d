"""A training recipe as TOML, and back.

The file holds every field, defaults included, so that it means the same to later releases.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import Any

import tomli_w

from adapterhub.domain.recipe import Recipe
from adapterhub.errors import FormatError
from adapterhub.formats.schema import to_domain

RECIPE_FILE = "recipe.toml"


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """Every field by name, as plain values, but for those that name nothing."""
    table = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return {name: value for name, value in table.items() if value is not None}


def encode_recipe(recipe: Recipe) -> bytes:
    return tomli_w.dumps(recipe_table(recipe)).encode()


def decode_recipe(data: bytes, *, name: str = RECIPE_FILE) -> Recipe:
    """Raises FormatError naming the field, UsageError for a number no run can have."""
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(
            f"{name} is not TOML: {error}", hint="mend the line it names, or train anew"
        ) from error
    return to_domain(table, Recipe, name=name)
