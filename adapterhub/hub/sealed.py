"""JSON files that carry the digest of what they say, so that no byte of them changes unseen.

Knows no schema. A file from before there were seals has none, and is read as it is.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from adapterhub.domain.digest import digest_of
from adapterhub.errors import FormatError
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_json import loads_strict

T = TypeVar("T")
SEAL = "sha256"


def encode_plain(value: Any) -> bytes:
    """The one text of a value: another byte is another value, or a damaged file."""
    return json.dumps(to_plain(value), indent=1, sort_keys=True, ensure_ascii=False).encode()


def encode_sealed(value: Any) -> bytes:
    plain = to_plain(value)
    return encode_plain({**plain, SEAL: digest_of(plain)})


def decode_sealed(data: bytes, kind: type[T], *, name: str) -> T:
    """Raises FormatError for what is not a `kind`, or not what was sealed."""
    plain = loads_strict(data, name=name)
    seal = plain.pop(SEAL, None) if isinstance(plain, dict) else None
    value = to_domain(plain, kind, name=name)
    if seal is not None and encode_sealed(value) != data:
        raise FormatError(f"{name} has been changed", hint="restore it from a copy")
    return value
