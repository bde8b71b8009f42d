"""One line of a search from an adapter's small files, broken or missing ones included.

Lenient on purpose: a listing says what is claimed; `verify` says what is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from adapterhub.domain.manifest import CARD_FILE, CONFIG_FILE, MANIFEST_FILE
from adapterhub.domain.stores import Snapshot, Summary
from adapterhub.errors import FormatError
from adapterhub.formats.card import read_front_matter
from adapterhub.formats.strict_json import loads_strict
from adapterhub.plugin.catalog import catalog

DOCUMENTS = (MANIFEST_FILE, CONFIG_FILE, CARD_FILE)
MAX_DOCUMENT = 1_000_000


def summarise(snapshot: Snapshot, read: Callable[[str], bytes | None]) -> Summary:
    """`read` gives the bytes of one of DOCUMENTS, or None."""
    manifest = _mapping(read(MANIFEST_FILE), MANIFEST_FILE)
    config = _mapping(read(CONFIG_FILE), CONFIG_FILE)
    card = _front_matter(read(CARD_FILE))
    base = manifest.get("base")
    peft_type = _text(config.get("peft_type"))
    return Summary(
        id=snapshot.ref.id,
        commit=snapshot.commit,
        method=_text(manifest.get("method")) or (peft_type.lower() if peft_type else None),
        base=_text(base.get("id") if isinstance(base, dict) else None)
        or _text(config.get("base_model_name_or_path"))
        or _text(card.get("base_model")),
        updated=snapshot.created,
        tags=_texts(card.get("tags")),
    )


def matches(summary: Summary, query: str, base: str | None) -> bool:
    """Every word of the query occurs somewhere; the base is equal, case aside."""
    if base is not None and (summary.base or "").lower() != base.lower():
        return False
    text = " ".join((summary.id, summary.method or "", summary.base or "", *summary.tags)).lower()
    return all(word in text for word in query.lower().split())


def summary_from_tags(
    id_: str, tags: Iterable[str], *, commit: str | None, updated: str | None
) -> Summary:
    """A hub's listing: it computes tags from the card and from adapter_config.json."""
    known = tuple(tags)
    methods = {entry.record.name for entry in catalog().methods} | {"composition"}
    bases = [tag.removeprefix("base_model:adapter:") for tag in known if ":adapter:" in tag]
    return Summary(
        id=id_,
        commit=commit,
        method=next((tag for tag in known if tag in methods), None),
        base=bases[0] if bases else None,
        updated=updated,
        tags=tuple(tag for tag in known if ":" not in tag),
    )


def _mapping(data: bytes | None, name: str) -> Mapping[str, Any]:
    if data is None:
        return {}
    try:
        value = loads_strict(data, name=name, max_bytes=MAX_DOCUMENT)
    except FormatError:
        return {}
    return value if isinstance(value, dict) else {}


def _front_matter(data: bytes | None) -> Mapping[str, Any]:
    try:
        return read_front_matter((data or b"").decode(errors="replace"))
    except FormatError:
        return {}


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value.isprintable() and value else None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(text for item in value[:50] if (text := _text(item)))
