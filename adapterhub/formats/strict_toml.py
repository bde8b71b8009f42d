"""Parse TOML that somebody else may have written, within a limit.

Knows the grammar only; which keys belong there is for the reader of each file.
"""

from __future__ import annotations

import tomllib
from typing import Any

from adapterhub.errors import FormatError

MAX_BYTES = 1_000_000


def loads_toml(data: bytes, *, name: str, hint: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Raises FormatError naming the file, with this hint."""
    if len(data) > max_bytes:
        raise FormatError(f"{name} has {len(data):,} bytes, the limit is {max_bytes:,}", hint=hint)
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise FormatError(f"{name} is not UTF-8 at byte {error.start:,}", hint=hint) from None
    except ValueError as error:
        raise FormatError(f"{name} is not TOML: {error}", hint=hint) from None
    except RecursionError:
        raise FormatError(f"{name} is nested too deep", hint=hint) from None
