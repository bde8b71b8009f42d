"""Promises of the published JSON Schema: it is of today, and says what the reader says."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from adapterhub.errors import FormatError
from adapterhub.formats.json_schema import PUBLISHED, manifest_schema
from adapterhub.formats.manifest import decode_manifest
from tests.fuzz.targets import TARGETS

FULL = json.loads(TARGETS["manifest"].good[0])
SMALL = {"schema_version": 1, "method": "lora", "config_version": 1, "base": {"id": "acme/tiny"}}
KINDS: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
    "array": list, "object": dict,
}  # fmt: skip


def fits(value: Any, rule: dict[str, Any], schema: dict[str, Any]) -> bool:
    """As much of JSON Schema 2020-12 as the published one uses; anything else is an error."""
    left = set(rule) - {"title", "description", "default", "$schema", "$defs"}
    fine = True
    for word in left:
        asked = rule[word]
        if word == "$ref":
            fine &= fits(value, schema["$defs"][asked.rpartition("/")[2]], schema)
        elif word == "anyOf":
            fine &= any(fits(value, one, schema) for one in asked)
        elif word in ("const", "enum"):
            options = [asked] if word == "const" else asked
            fine &= any(type(value) is type(one) and value == one for one in options)
        elif word == "type":
            fine &= isinstance(value, KINDS[asked]) and (
                asked == "boolean" or not isinstance(value, bool)
            )
        elif word == "items":
            fine &= isinstance(value, list) and all(fits(one, asked, schema) for one in value)
        elif word == "required":
            fine &= isinstance(value, dict) and set(asked) <= set(value)
        elif word == "properties":
            fine &= isinstance(value, dict) and all(
                fits(value[key], one, schema) for key, one in asked.items() if key in value
            )
        else:
            assert (word, asked) == ("additionalProperties", False)
            fine &= isinstance(value, dict) and set(value) <= set(rule["properties"])
    return fine


def test_the_published_schema_is_of_today() -> None:
    assert PUBLISHED.read_bytes() == manifest_schema(), (
        "the manifest has changed: python -m adapterhub.formats.json_schema"
    )


def test_an_installed_package_has_the_schema() -> None:
    found = resources.files("adapterhub.formats") / "schemas" / "adapterhub.schema.json"
    assert json.loads(found.read_bytes())["title"] == "adapterhub.json, version 1"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"inferred": True},
        {"trainer": None},
        {"colour": 1},
        {"method": 3},
        {"config_version": 1.5},
        {"config_version": True},
        {"schema_version": 2},
        {"base": {"id": "x", "colour": 1}},
        {"base": {}},
        {"base": {"id": "x", "scheme": {"name": "nf5"}}},
        {"parents": [{"ref": "u/a", "weight": "1", "sha256": ""}]},
        {"parents": [{"ref": "u/a", "weight": 1, "sha256": ""}]},
        {"recipe": []},
        {"allowed": [1]},
    ],
)
@pytest.mark.parametrize("known", [SMALL, FULL])
def test_the_schema_accepts_what_the_reader_accepts(
    known: dict[str, Any], change: dict[str, Any]
) -> None:
    schema = json.loads(PUBLISHED.read_bytes())
    try:
        decode_manifest(json.dumps(known | change).encode())
        read = True
    except FormatError:
        read = False
    assert fits(known | change, schema, schema) == read


@pytest.mark.parametrize("missing", SMALL)
def test_the_schema_asks_for_what_the_reader_asks_for(missing: str) -> None:
    schema = json.loads(PUBLISHED.read_bytes())
    cut = {key: value for key, value in SMALL.items() if key != missing}
    assert not fits(cut, schema, schema)
    with pytest.raises(FormatError):
        decode_manifest(json.dumps(cut).encode())
