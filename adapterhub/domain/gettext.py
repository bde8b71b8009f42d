"""What a gettext catalog holds, and what becomes of it, as values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One message. `translations` has one text, or one for each plural form of the language when
    `plural` is there; an empty text is not translated yet. `line` is 0 in a compiled catalog."""

    source: str
    translations: tuple[str, ...]
    plural: str | None = None
    context: str | None = None
    fuzzy: bool = False
    line: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """The messages of one file, without the header, which `headers` has field by field.

    `unreadable` counts messages that stand in no form that can be read here: those of a compiled
    catalog whose text depends on the machine that it is used on.
    """

    name: str
    entries: tuple[Entry, ...]
    headers: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """Where catalogs come from. `version` and `licence` are as its own metadata says, None where
    that says nothing."""

    name: str
    catalogs: tuple[Catalog, ...]
    version: str | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A text and its translation; `package` and `catalog` name where both are from."""

    source: str
    target: str
    package: str
    catalog: str
    context: str | None = None
