"""Catalogs in, pairs that are worth learning from out, and why each other message was left out.

Judges one message at a time, by its form; whether a translation is right is not known here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from adapterhub.domain.gettext import Catalog, Entry, Package, Pair
from adapterhub.translation.languages import script_of, scripts_of
from adapterhub.translation.placeholders import disagreement, prose

LONGEST = 1000  # characters
_TWO_FORMS = 2
# Controls that a terminal obeys or that turn the direction of writing, and no characters at all.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\uf8ff\ufffd]")
# A single underscore may be a mnemonic: Colo_rs.
_IDENTIFIER = re.compile(r"\w+(?:\.\w+)+|[^\W_]+(?:_[^\W_]+){2,}")


@dataclass(slots=True)
class Cleaned:
    """`pairs` in the order of packages, catalogs and messages; `left_out` counts by reason, in
    messages, or in plural forms of one."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def clean(packages: Sequence[Package], language: str) -> Cleaned:
    """Every message of every catalog, judged; duplicates are not looked for."""
    scripts = scripts_of(language, _translations(packages))
    found = Cleaned()
    for package in packages:
        for catalog in package.catalogs:
            _clean_catalog(package, catalog, scripts, found)
    return found


def _translations(packages: Sequence[Package]) -> Iterator[str]:
    for package in packages:
        for catalog in package.catalogs:
            for entry in catalog.entries:
                yield from entry.translations


def _clean_catalog(
    package: Package, catalog: Catalog, scripts: frozenset[str], found: Cleaned
) -> None:
    if catalog.unreadable:
        found.left_out["depends on the machine"] += catalog.unreadable
    for entry in catalog.entries:
        forms = _forms(entry)
        if entry.fuzzy or forms is None:
            unpaired = "plural forms that do not pair one to one"
            found.left_out["fuzzy" if entry.fuzzy else unpaired] += 1
            continue
        for raw_source, raw_target in forms:
            source = unicodedata.normalize("NFC", raw_source)
            target = unicodedata.normalize("NFC", raw_target)
            reason = fault(source, target, scripts)
            if reason is not None:
                found.left_out[reason] += 1
                continue
            found.pairs.append(
                Pair(
                    source=source.strip(),
                    target=target.strip(),
                    package=package.name,
                    catalog=catalog.name,
                    context=entry.context,
                )
            )


def _forms(entry: Entry) -> list[tuple[str, str]] | None:
    """(source, target) of each form that English has too; None where they cannot be told.

    A language with one form says it of any number, which in English is the plural. Where there are
    more than two, which of them is English's plural depends on the number.
    """
    if entry.plural is None:
        return [(entry.source, entry.translations[0])]
    if len(entry.translations) == 1:
        return [(entry.plural, entry.translations[0])]
    if len(entry.translations) == _TWO_FORMS:
        return list(zip((entry.source, entry.plural), entry.translations, strict=True))
    return None


def fault(source: str, target: str, scripts: frozenset[str]) -> str | None:
    """Why a pair is left out, the first reason there is; None if it is good."""
    return next(_faults(source, target, scripts), None)


def _faults(source: str, target: str, scripts: frozenset[str]) -> Iterator[str]:
    if not source.strip() or not target.strip():
        yield "empty or not translated"
    if _CONTROL.search(source) or _CONTROL.search(target):
        yield "control characters"
    if max(len(source), len(target)) > LONGEST:
        yield f"longer than {LONGEST:,} characters"
    if _same(source) == _same(target):
        yield "identical to the source"
    if not _has("LATIN", prose(source)):
        yield "no word to translate"
    if _IDENTIFIER.fullmatch(source.strip()):
        yield "the source is an identifier"
    if any(source.count(mark) > target.count(mark) for mark in "|^"):
        yield "the source carries its context"
    found = disagreement(source, target) or _script_fault(prose(target), scripts)
    if found is not None:
        yield found


def _script_fault(words: str, scripts: frozenset[str]) -> str | None:
    if not scripts or not any(script_of(letter) in scripts for letter in words):
        return "no letter of the language's script"
    if "LATIN" in scripts:
        return None
    in_script = in_latin = 0
    for word in words.split():
        kinds = {script_of(letter) for letter in word}
        in_script += bool(kinds & scripts)
        in_latin += "LATIN" in kinds and not kinds & scripts
    return "mostly Latin letters" if in_latin > in_script else None


def _same(text: str) -> str:
    return " ".join(text.split())


def _has(script: str, text: str) -> bool:
    return any(script_of(letter) == script for letter in text)


def once_each(pairs: Iterable[Pair], left_out: Counter[str]) -> list[Pair]:
    """Each source once, spaces aside, with the translation that most catalogs give it, of equally
    frequent ones the first; where it stood first. Counts what that leaves out."""
    found: dict[str, dict[str, list[Pair]]] = {}
    for pair in pairs:
        found.setdefault(_same(pair.source), {}).setdefault(_same(pair.target), []).append(pair)
    kept = []
    for translations in found.values():
        chosen = max(translations.values(), key=len)  # of equals, max takes the first
        others = sum(map(len, translations.values())) - len(chosen)
        if len(chosen) > 1:
            left_out["the same pair again"] += len(chosen) - 1
        if others:
            left_out["a rarer translation of the same source"] += others
        kept.append(chosen[0])
    return kept
