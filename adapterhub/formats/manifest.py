"""The bytes of `adapterhub.json`.

Knows the file's rules; whether the adapter beside it keeps its word is for `hub.verify`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from adapterhub.domain.manifest import MANIFEST_FILE, SCHEMA_VERSION, Manifest
from adapterhub.errors import FormatError
from adapterhub.formats.escapes import escape, unescape
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_json import loads_strict

# A list of numbers, which no text can look like: within a text a line break is written as \\n.
_NUMBERS = re.compile(r"\[\n\s+[-+.\de]+(?:,\n\s+[-+.\de]+)*\n\s+\]")


def encode_manifest(m: Manifest) -> bytes:
    """Pretty JSON with sorted keys: the same manifest is always the same bytes. Lists of numbers
    are on one line each.

    Raises FormatError for one that `decode_manifest` would refuse, before anything is written.
    """
    plain = to_plain(_golden(m, escape))
    to_domain(plain, Manifest, name=MANIFEST_FILE)
    text = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: re.sub(r"\s+", " ", found[0]), text)
    return f"{text}\n".encode()


def decode_manifest(data: bytes, *, name: str = MANIFEST_FILE) -> Manifest:
    """Raises FormatError naming file and field: wrong type, unknown field, newer schema."""
    value = loads_strict(data, name=name)
    _check_version(value, name)
    return _golden(to_domain(value, Manifest, name=name), unescape)


def _golden(m: Manifest, change: Callable[[str], str]) -> Manifest:
    """Golden samples alone may hold line breaks and more, which are escaped in the file."""
    return replace(
        m,
        golden=tuple(
            replace(
                sample,
                messages=tuple(replace(t, content=change(t.content)) for t in sample.messages),
                answer=change(sample.answer),
            )
            for sample in m.golden
        ),
    )


def _check_version(value: Any, name: str) -> None:
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int or version < 1:
        raise FormatError(
            f"{name}: schema_version: expected a number from 1 to {SCHEMA_VERSION}",
            hint=f'add "schema_version": {SCHEMA_VERSION}, or remove the file to have it inferred',
        )
    if version > SCHEMA_VERSION:
        raise FormatError(
            f"{name}: schema_version: {version} is newer than {SCHEMA_VERSION}, "
            "the newest this adapterhub reads",
            hint="pip install --upgrade adapterhub",
        )
