"""What lies beside an adapter's weights, held against the base: added tokens, a chat template.

Neither takes effect here, where a base keeps its own; whoever expects it to is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import FormatError
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.files import read_bytes

TOKENS_FILE = "added_tokens.json"
TOKENIZER_FILE = "tokenizer.json"
TEMPLATE_FILE = "chat_template.jinja"
_LIMIT = 64 << 20


def companion_notes(folder: Path, base: LoadedBase) -> Iterator[str]:
    """One line for each that is not the base's."""
    rows = int(base.model.get_input_embeddings().weight.shape[0])
    beyond = {token: number for token, number in _added(folder).items() if number >= rows}
    if beyond:
        token, number = min(beyond.items(), key=lambda item: item[1])
        yield (
            f"its tokenizer has {len(beyond)} tokens for which this base has no embedding, first "
            f"{token} ({number}, and the base has {rows} rows)"
        )
    yield from template_notes(folder, base)


def template_notes(folder: Path, base: LoadedBase) -> Iterator[str]:
    """Of the chat template alone, which needs no look into a tokenizer of many megabytes."""
    template = folder / TEMPLATE_FILE
    data = read_bytes(template, limit=_LIMIT) if template.is_file() else None
    if data is not None and sha256_hex(data) != base.spec.fingerprint.chat_template:
        yield "it brings a chat template of its own, which is not this base's and is not used here"


def _added(folder: Path) -> dict[str, int]:
    """Token -> number, of the file that older tokenizers write or of the whole tokenizer."""
    found: dict[str, int] = {}
    for name in (TOKENS_FILE, TOKENIZER_FILE):
        if (folder / name).is_file():
            found |= _numbers(_read(folder / name))
    return found


def _numbers(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    entries = value.get("added_tokens")
    if isinstance(entries, list):
        value = {
            str(entry.get("content")): entry.get("id")
            for entry in entries
            if isinstance(entry, dict)
        }
    return {token: number for token, number in value.items() if type(number) is int}


def _read(file: Path) -> Any:
    """None for a file that is no JSON: a tokenizer of the adapter's own is never used here."""
    try:
        data = read_bytes(file, limit=_LIMIT)
        return loads_strict(data, name=file.name, max_bytes=_LIMIT) if data is not None else None
    except FormatError:
        return None
