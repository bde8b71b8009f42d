"""Divide pairs into those to train on and those held out, so that neither side knows the other.

By catalog, never by row: the texts of one program resemble each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.gettext import Pair

_SHARE = 0.1

Catalogs = frozenset[tuple[str, str]]


def chosen_catalogs(pairs: Iterable[Pair]) -> Catalogs:
    """(package, catalog) of about a tenth of all pairs, the same ones each time.

    In the order of the sha256 of their names, as long as the tenth is not passed; where none fits
    in, the smallest. None of a single catalog.
    """
    sizes = Counter((pair.package, pair.catalog) for pair in pairs)
    if len(sizes) < 2:
        return frozenset()
    room = _SHARE * sizes.total()
    chosen: set[tuple[str, str]] = set()
    for place in sorted(sizes, key=lambda place: sha256_hex("\0".join(place).encode())):
        if sizes[place] <= room:
            chosen.add(place)
            room -= sizes[place]
    return frozenset(chosen or {min(sorted(sizes), key=sizes.__getitem__)})


def divide(
    pairs: Sequence[Pair], held_out: Catalogs, left_out: Counter[str]
) -> tuple[list[Pair], list[Pair]]:
    """(to train on, held out). Sources that are equal but for case, digits, punctuation and spaces
    go to the side that has more of them, of equally many to the held-out one, which is smaller; the
    other side's are left out and counted."""
    groups: dict[str, tuple[list[int], list[int]]] = {}
    for number, pair in enumerate(pairs):
        sides = groups.setdefault(folded(pair.source), ([], []))
        sides[(pair.package, pair.catalog) in held_out].append(number)
    train, held = [], []
    for mine, theirs in groups.values():
        if len(mine) > len(theirs):
            train += mine
            dropped = theirs
        else:
            held += theirs
            dropped = mine
        if dropped:
            left_out["nearly the same on both sides of the split"] += len(dropped)
    return [pairs[n] for n in sorted(train)], [pairs[n] for n in sorted(held)]


def folded(text: str) -> str:
    """Lower-case letters alone, every number 0. A text without any stands for itself."""
    numbered = re.sub(r"\d+", "0", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"[\W_]+", "", numbered) or text
