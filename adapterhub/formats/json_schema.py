"""The JSON Schema of `adapterhub.json`, for tools that read adapters without this package.

Made from the manifest's own types; `python -m adapterhub.formats.json_schema` writes it anew where
it is published. It knows forms only: rules between fields are the decoder's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from adapterhub.domain.manifest import MANIFEST_FILE, SCHEMA_VERSION, Manifest

PUBLISHED = Path(__file__).parent / "schemas" / "adapterhub.schema.json"


def manifest_schema() -> bytes:
    """JSON Schema 2020-12, as pretty JSON."""
    schema = msgspec.json.schema(Manifest)
    for kind in schema["$defs"].values():
        # The decoder refuses a field it does not know, so that none is lost in silence.
        kind["additionalProperties"] = False
        kind["description"] = re.sub(r"\s+", " ", kind["description"])
    manifest = schema["$defs"]["Manifest"]
    manifest["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    manifest["required"] = sorted({*manifest["required"], "schema_version"})
    whole: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{MANIFEST_FILE}, version {SCHEMA_VERSION}",
        **schema,
    }
    return f"{json.dumps(whole, indent=2)}\n".encode()


if __name__ == "__main__":
    PUBLISHED.parent.mkdir(exist_ok=True)
    PUBLISHED.write_bytes(manifest_schema())
