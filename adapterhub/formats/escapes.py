"""Write any text with printable characters only, and read it again.

Knows which characters could forge a screen, and nothing of where the text stands.
"""

from __future__ import annotations

import re

from adapterhub.formats.schema import FORGING

_ESCAPED = re.compile(r"\\(?:u([0-9a-f]{4})|(.))", re.DOTALL)
_SHORT = {"\n": "n", "\t": "t", "\\": "\\"}
_LONG = {letter: char for char, letter in _SHORT.items()}


def escape(text: str) -> str:
    r"""A backslash becomes two, a line break \n, and whatever else could forge \uXXXX."""
    return FORGING.sub(_escaped, text.replace("\\", "\\\\"))


def unescape(text: str) -> str:
    """The text that `escape` was given; a backslash before anything else stands for itself."""
    return _ESCAPED.sub(_meant, text)


def _escaped(found: re.Match[str]) -> str:
    short = _SHORT.get(found[0])
    return f"\\{short}" if short else f"\\u{ord(found[0]):04x}"


def _meant(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    return _LONG.get(found[2], found[0])
