"""The bytes of `composition.toml`: adapters pinned to answer together.

Knows the file's rules; fetching and combining the adapters is for others.
"""

from __future__ import annotations

import math

import tomli_w

from adapterhub.domain.composition import PinnedComposition
from adapterhub.domain.digest import is_sha256
from adapterhub.domain.manifest import COMPOSITION_FILE
from adapterhub.domain.scales import fault_of
from adapterhub.errors import FormatError
from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.formats.strict_toml import loads_toml

_REWRITE = "write it again: adapterhub stack A+0.5*B"


def encode_composition(c: PinnedComposition) -> bytes:
    return tomli_w.dumps(to_plain(c)).encode()


def decode_composition(data: bytes, *, name: str = COMPOSITION_FILE) -> PinnedComposition:
    """Raises FormatError naming file and field."""
    pinned = to_domain(loads_toml(data, name=name, hint=_REWRITE), PinnedComposition, name=name)
    if not pinned.terms:
        raise FormatError(f"{name}: terms: there are none", hint=_REWRITE)
    for index, term in enumerate(pinned.terms):
        where = f"{name}: terms[{index}]"
        if not math.isfinite(term.weight) or not 0.0 < abs(term.weight) <= 1e3:
            raise FormatError(
                f"{where}.weight: {term.weight} is of no use",
                hint="weights are finite, not zero, and at most 1000 in size",
            )
        fault = fault_of(term.scales or {})
        if fault is not None:
            raise FormatError(f"{where}.scales: {fault[0]}", hint=fault[1])
        if not is_sha256(term.sha256):
            raise FormatError(f"{where}.sha256: not 64 hexadecimal digits", hint=_REWRITE)
    if pinned.rank is not None and not 1 <= pinned.rank <= 4096:
        raise FormatError(f"{name}: rank: {pinned.rank} is not in 1..4096", hint=_REWRITE)
    return pinned
