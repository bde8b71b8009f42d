"""Write what `base list` and the search for a base read, without any weights.

Test equipment: a base like this can be named and compared, not loaded.
"""

from __future__ import annotations

from pathlib import Path

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.formats.base_spec import encode_base


def write_base_record(home: Path, name: str) -> str:
    """A base called `name` on the machine whose home this is; returns the name."""
    spec = BaseSpec(
        name=name,
        id="acme/tiny",
        source="acme/tiny",
        revision="0" * 40,
        family="llama",
        modality="causal-lm",
        scheme=scheme_by_name("nf4"),
        fingerprint=Fingerprint(layout="1" * 64, sketch="2" * 64, content="3" * 64),
        parameters=135_000_000,
        stored_bytes=90_000_000,
        context_length=2048,
    )
    folder = home / "bases" / name
    folder.mkdir(parents=True)
    (folder / "base.json").write_bytes(encode_base(spec))
    return name
