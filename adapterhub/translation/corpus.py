"""From packages to rows: cleaned, divided, each text once, with where each row is from.

Makes values; reading packages and writing files is for others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.gettext import Package, Pair
from adapterhub.errors import DataError, UsageError
from adapterhub.translation.cleaning import clean, once_each
from adapterhub.translation.languages import english_name
from adapterhub.translation.splitting import chosen_catalogs, divide

TRAIN_FILE = "train.jsonl"
HELD_OUT_FILE = "held-out.jsonl"
SOURCES_FILE = "sources.json"
_SOURCE = "{source}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """`held_packages` names those that were held out whole; `left_out` counts by reason."""

    language: str
    template: str
    packages: tuple[Package, ...]
    held_packages: frozenset[str]
    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    left_out: dict[str, int]


def default_template(language: str) -> str:
    """`Translate to Korean: {source}`. Raises UsageError for a language without a known name."""
    return f"Translate to {english_name(language)}: {_SOURCE}"


def check_template(template: str) -> None:
    """Raises UsageError unless the source has exactly one place in it."""
    if template.count(_SOURCE) != 1:
        raise UsageError(
            f"{template!r} does not say {_SOURCE} once",
            hint=f'--template "Translate to Korean: {_SOURCE}"',
        )


def make_corpus(
    train: Sequence[Package], held_out: Sequence[Package], *, language: str, template: str
) -> Corpus:
    """The pairs of both, where `held_out` is the held-out side; without it some catalogs of `train`
    are (see `chosen_catalogs`).

    Raises UsageError for a package that is there twice, DataError if no pair is left.
    """
    packages = (*train, *held_out)
    _check_once([package.name for package in packages])
    found = clean(packages, language)
    names = frozenset(package.name for package in held_out)
    if names:
        held = frozenset((p.package, p.catalog) for p in found.pairs if p.package in names)
    else:
        held = chosen_catalogs(found.pairs)
    mine, theirs = divide(found.pairs, held, found.left_out)
    corpus = Corpus(
        language=language,
        template=template,
        packages=packages,
        held_packages=names,
        train=tuple(once_each(mine, found.left_out)),
        held_out=tuple(once_each(theirs, found.left_out)),
        left_out=dict(found.left_out.most_common()),
    )
    if not corpus.train and not corpus.held_out:
        raise DataError(
            "no pair is left: " + (", ".join(corpus.left_out) or "the catalogs are empty"),
            hint="name other packages",
        )
    return corpus


def rows(corpus: Corpus, pairs: Sequence[Pair]) -> bytes:
    """JSON Lines of `{"messages": [...], "source": {...}}`, in the order of the pairs."""
    facts = {package.name: package for package in corpus.packages}
    return "".join(
        json.dumps(_row(pair, facts[pair.package], corpus.template), ensure_ascii=False) + "\n"
        for pair in pairs
    ).encode()


def sources(corpus: Corpus) -> dict[str, Any]:
    """What the rows are from and what was left out, as `sources.json` has it."""
    train, held_out = (
        Counter((p.package, p.catalog) for p in pairs) for pairs in (corpus.train, corpus.held_out)
    )
    files = {TRAIN_FILE: corpus.train, HELD_OUT_FILE: corpus.held_out}
    return {
        "to": corpus.language,
        "template": corpus.template,
        "files": {
            name: {"rows": len(pairs), "sha256": sha256_hex(rows(corpus, pairs))}
            for name, pairs in files.items()
            if pairs
        },
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "licence": package.licence,
                "held_out_whole": package.name in corpus.held_packages,
                "entries": sum(len(catalog.entries) for catalog in package.catalogs),
                "catalogs": [
                    {
                        "name": catalog.name,
                        "entries": len(catalog.entries),
                        "train": train[package.name, catalog.name],
                        "held_out": held_out[package.name, catalog.name],
                    }
                    for catalog in package.catalogs
                ],
            }
            for package in corpus.packages
        ],
        "left_out": corpus.left_out,
    }


def _row(pair: Pair, package: Package, template: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": template.replace(_SOURCE, pair.source)},
            {"role": "assistant", "content": pair.target},
        ],
        "source": {
            "package": package.name,
            "version": package.version,
            "licence": package.licence,
            "catalog": pair.catalog,
            "context": pair.context,
        },
    }


def _check_once(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is named twice", hint="name each package once")
