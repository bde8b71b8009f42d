"""The bytes of a base's description, kept beside its stored weights.

Knows the file's rules and nothing of weights.
"""

from __future__ import annotations

import json

from adapterhub.domain.base import BaseSpec
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_json import loads_strict


def encode_base(spec: BaseSpec) -> bytes:
    """Pretty JSON with sorted keys: the same base is always the same bytes."""
    text = json.dumps(to_plain(spec), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def decode_base(data: bytes, *, name: str) -> BaseSpec:
    """Raises FormatError naming file and field."""
    return to_domain(loads_strict(data, name=name), BaseSpec, name=name)
