"""How near a written text comes to the expected one, each a number from 0 to 1.

Knows two texts at a time: no task, no average.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from adapterhub.errors import DataError

PATTERN_SECONDS = 2.0  # for one text: far more than any sensible pattern needs
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_WORD = re.compile(r"[^a-z0-9]+")


def found_by(pattern: str, given: str, expected: str) -> float:
    """1.0 when the first match of the pattern in `given` is `expected`, whitespace around both
    stripped: its first group, or all of it where there is none.

    Raises DataError for a pattern that takes too long.
    """
    import regex

    try:
        match = regex.search(pattern, given, timeout=PATTERN_SECONDS)
    except TimeoutError as error:
        raise DataError(
            f"the pattern {pattern!r} takes over {PATTERN_SECONDS:g} s on {given[:40]!r}",
            hint="write it without a repeat inside a repeat, such as (a+)+",
        ) from error
    if match is None:
        return 0.0
    found = match[1] if match.re.groups else match[0]
    return float(found is not None and found.strip() == expected.strip())


def pattern_fault(pattern: str) -> str | None:
    """Why this is no pattern, if it is none."""
    import regex

    try:
        regex.compile(pattern)
    except regex.error as error:
        return str(error)
    return None


# --- JSON -------------------------------------------------------------------------------------


def json_equal(given: str, expected: str) -> float:
    """1.0 when both are one JSON document of the same value: the order of keys and the spacing are
    free, 1 and 1.0 are one number, and true is none. What is no JSON scores 0."""
    try:
        return float(_tagged(parse_json(given)) == _tagged(parse_json(expected)))
    except (ValueError, RecursionError):
        return 0.0


def parse_json(text: str) -> Any:
    """Raises ValueError, or RecursionError; a repeated key, NaN and infinities are no JSON."""
    return json.loads(
        text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_number
    )


def _tagged(value: Any) -> Any:
    """The value with truth values told from 0 and 1, which they equal in Python."""
    if isinstance(value, bool):
        return ("truth", value)
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    if isinstance(value, dict):
        return {key: _tagged(item) for key, item in value.items()}
    return value


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    listed = list(pairs)
    found = dict(listed)
    if len(found) != len(listed):
        raise ValueError("a key appears twice")
    return found


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is too large")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


# --- bags and orders of words -----------------------------------------------------------------


def f1(given: str, expected: str) -> float:
    """Harmonic mean of precision and recall of the bag of words, as in SQuAD (arXiv 1606.05250).

    Both are first put into small letters, ASCII punctuation and then the words a, an and the are
    taken out, and what is left is split at whitespace. Two texts of which nothing is left agree.
    """
    ours, theirs = _squad_words(given), _squad_words(expected)
    if not ours or not theirs:
        return float(ours == theirs)
    return _harmonic((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def rouge_n(given: str, expected: str, n: int) -> float:
    """ROUGE-N F-measure (Lin 2004), equal to the package rouge-score without stemming.

    Words are runs of a-z and 0-9 after the text was put into small letters: other alphabets have
    none.
    """
    ours, theirs = (_n_grams(_rouge_words(text), n) for text in (given, expected))
    return _harmonic((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(given: str, expected: str) -> float:
    """ROUGE-L F-measure over the whole text as one sentence, with the words of `rouge_n`."""
    ours, theirs = _rouge_words(given), _rouge_words(expected)
    return _harmonic(longest_common(ours, theirs), len(ours), len(theirs))


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit for each of `one` (Hyyro 2004, "Bit-parallel
    LCS-length computation revisited")."""
    places: dict[str, int] = {}
    for index, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(one)) - 1
    row = every
    for word in other:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & every
    return len(one) - row.bit_count()


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _rouge_words(text: str) -> list[str]:
    return _NO_WORD.sub(" ", text.lower()).split()


def _n_grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _harmonic(shared: int, ours: int, theirs: int) -> float:
    """2 P R / (P + R) of so many shared."""
    return 2 * shared / (ours + theirs) if shared else 0.0
