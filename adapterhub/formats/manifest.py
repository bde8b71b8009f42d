"""The bytes of `adapterhub.json`.

Knows the file's rules; whether the adapter beside it keeps its word is for `hub.verify`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from adapterhub.domain.manifest import MANIFEST_FILE, SCHEMA_VERSION, Manifest
from adapterhub.errors import FormatError
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_json import loads_strict

# PyPA's form of a project name.
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


def encode_manifest(m: Manifest) -> bytes:
    """Pretty JSON with sorted keys: the same manifest is always the same bytes.

    Raises FormatError for one that `decode_manifest` would refuse, before anything is written.
    """
    plain = to_plain(m)
    _check_plugin(to_domain(plain, Manifest, name=MANIFEST_FILE), MANIFEST_FILE)
    text = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def decode_manifest(data: bytes, *, name: str = MANIFEST_FILE) -> Manifest:
    """Raises FormatError naming file and field: wrong type, unknown field, newer schema."""
    value = loads_strict(data, name=name)
    _check_version(value, name)
    manifest = to_domain(value, Manifest, name=name)
    _check_plugin(manifest, name)
    return manifest


def _check_version(value: Any, name: str) -> None:
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int or version < 1:
        raise FormatError(
            f"{name}: schema_version: expected a number from 1 to {SCHEMA_VERSION}",
            hint=f'add "schema_version": {SCHEMA_VERSION}, or remove the file to have it inferred',
        )
    if version > SCHEMA_VERSION:
        raise FormatError(
            f"{name} was written by a newer adapterhub: "
            f"its schema_version {version} is newer than {SCHEMA_VERSION}",
            hint="pip install --upgrade adapterhub",
        )


def _check_plugin(manifest: Manifest, name: str) -> None:
    """Its distribution is shown as something to install, so it may be a name and nothing else."""
    if manifest.plugin is not None and not _DISTRIBUTION.fullmatch(manifest.plugin.distribution):
        raise FormatError(
            f"{name}: plugin.distribution: {manifest.plugin.distribution[:80]!r} is no name of a "
            "Python distribution",
            hint="correct 'plugin.distribution', or remove 'plugin'",
        )
