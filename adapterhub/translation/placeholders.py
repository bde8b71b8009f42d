"""Tell whether a translation keeps what a program puts into its text, or shows by it.

Compares marks, not meaning: where it is in doubt whether two agree, they do not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable

# printf of C and Python ("% d" is no placeholder here: "20 % discount" is prose), then Qt's %1,
# Ruby's and shell's, and anything in braces.
_FORMAT = re.compile(
    r"%%"
    r"|%(?:(?P<index>\d{1,2})\$)?(?:\((?P<name>[^()\s]+)\))?[#0+'-]*(?:\*|\d{1,4})?"
    r"(?:\.(?:\*|\d{1,4}))?(?:hh?|ll?|[zjtLq])?(?P<kind>[diouxXeEfFgGcrsa]|<\w+>)"
    r"|%L?\d{1,2}"
    r"|\$\w+"
    r"|[$%#]?\{\{[^{}]*\}\}|[$%#]?\{[^{}]*\}",
    re.ASCII,  # letters of the language may follow at once: $list의
)
_TAG = re.compile(r"</?([^\s<>/]++)[^<>]*+>")
_ENTITY = re.compile(r"&#?\w{1,12};", re.ASCII)
_MNEMONIC = re.compile(r"[_&](?=[^\W\d_])")
_ELLIPSIS = re.compile(r"(?:\.\.\.|…)[\"')\]]*$")
_COLON = re.compile(r"[:：]$")


def disagreement(source: str, target: str) -> str | None:
    """The kind of mark in which a translation differs from its source; None if in none."""
    if _placeholders(source) != _placeholders(target):
        return "placeholders disagree"
    bare_source, bare_target = _FORMAT.sub("", source), _FORMAT.sub("", target)
    if _tags(bare_source) != _tags(bare_target):
        return "tags or entities disagree"
    if _mnemonics(bare_source) != _mnemonics(bare_target):
        return "mnemonics disagree"
    if _edges(source) != _edges(target):
        return "ellipsis, colon or line breaks at an end disagree"
    return None


def prose(text: str) -> str:
    """The text without placeholders, tags and entities."""
    return _ENTITY.sub(" ", _TAG.sub(" ", _FORMAT.sub(" ", text)))


def _placeholders(text: str) -> Counter[Hashable]:
    """Those without a number or name count by their place, so that an exchange is seen: `%s %d` is
    `%1$s %2$d`."""
    found: Counter[Hashable] = Counter()
    place = 0
    for mark in _FORMAT.finditer(text):
        if mark["kind"] is None:
            found[mark[0]] += 1
            continue
        if mark["name"] is None and mark["index"] is None:
            place += 1
        found[mark["name"] or int(mark["index"] or place), mark["kind"]] += 1
    return found


def _tags(text: str) -> Counter[str]:
    closing = ((tag[0].startswith("</"), tag[1].lower()) for tag in _TAG.finditer(text))
    tags = Counter(f"{'/' if closes else ''}{name}" for closes, name in closing)
    return tags + Counter(_ENTITY.findall(text))


def _mnemonics(text: str) -> Counter[str]:
    """`_File` is 파일(_F), and may be another letter. Names such as `file_name` are the same on
    both sides and do no harm."""
    return Counter(_MNEMONIC.findall(_ENTITY.sub("", _TAG.sub("", text))))


def _edges(text: str) -> tuple[int, int, bool, bool]:
    """(line breaks before, line breaks behind, ends with an ellipsis, ends with a colon)"""
    before = len(text) - len(text.lstrip("\n"))
    behind = len(text) - len(text.rstrip("\n"))
    end = text.rstrip()
    return before, behind, bool(_ELLIPSIS.search(end)), bool(_COLON.search(end))
