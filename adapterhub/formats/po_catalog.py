"""Read a gettext catalog as translators write it (.po), by the GNU gettext manual, section 3.

Obsolete entries are left out; what is to become of fuzzy ones is their reader's business.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import NoReturn

from adapterhub.domain.gettext import Catalog, Entry
from adapterhub.errors import FormatError

MAX_BYTES = 50_000_000
MAX_ENTRIES = 200_000
MAX_PLURALS = 6  # Arabic's, the most there are
HINT = "`msgfmt -c` says what else is wrong; name another file, or leave this package out"

# ASCII below 0x80, which the parser relies on; no codec that is no character set, such as idna.
_CHARSET = re.compile(
    r"(utf-?8|(us-)?ascii|iso-?8859-?\d{1,2}|(windows-|cp)125\d|koi8-[rtu]|euc-(kr|jp|tw|cn)"
    r"|cp9(36|49|50)|big5(-hkscs)?|gb2312|gbk|gb18030|tis-620)"
)
_KEYWORD = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d{1,2})\])?\s*+(?=")')
_STRINGS = re.compile(r'(?:"(?:[^"\\]|\\.)*+"\s*+)++')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)")
_ESCAPED = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "\\": "\\", '"': '"', "'": "'", "?": "?",
}  # fmt: skip
_DECLARED = re.compile(rb"charset=([A-Za-z0-9._:-]{1,40})")


def decode_po(data: bytes, *, name: str) -> Catalog:
    """Raises FormatError, naming file and line, for what `msgfmt` would refuse, for a character set
    that is not the declared one, and past the limits."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{name} has {len(data):,} bytes, the limit is {MAX_BYTES:,}", hint=HINT)
    parser = _Parser(name)
    for number, line in enumerate(_decoded(data, name).split("\n"), start=1):
        parser.take(line.strip(" \t\r\f\v"), number)
    parser.finish()
    return Catalog(name=name, entries=tuple(parser.entries), headers=parser.headers or {})


def charset_of(data: bytes, name: str) -> str:
    """The character set that the header declares, UTF-8 if none or the template's word CHARSET."""
    declared = _DECLARED.search(data)
    found = declared[1].decode().lower() if declared else "utf-8"
    if found == "charset":
        return "utf-8"
    if not _CHARSET.fullmatch(found):
        raise FormatError(f"{name} is written in {found!r}, which is not read here", hint=HINT)
    try:
        return codecs.lookup(found).name
    except LookupError:
        raise FormatError(
            f"{name} is written in {found!r}, which nobody knows", hint=HINT
        ) from None


def parse_headers(text: str) -> dict[str, str]:
    """The fields of a header's text, names in lower case."""
    fields = (line.partition(":") for line in text.split("\n") if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in fields}


def _decoded(data: bytes, name: str) -> str:
    charset = charset_of(data, name)
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode(charset)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{name} line {line}: not {charset}", hint=HINT) from None


@dataclass(slots=True)
class _Draft:
    """The entry that is being read: keyword -> its strings."""

    line: int
    parts: dict[str, list[str]] = field(default_factory=dict)
    fuzzy: bool = False


class _Parser:
    """Lines in, entries out. Between two lines it knows the open entry and its open keyword."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.headers: dict[str, str] | None = None
        self._draft: _Draft | None = None
        self._open: list[str] | None = None
        self._fuzzy = False
        self._line = 0

    def take(self, line: str, number: int) -> None:
        self._line = number
        if not line:
            return
        if line[0] == "#":
            self._comment(line)
        elif line[0] == '"':
            if self._open is None:
                self._refuse("a text that belongs to nothing")
            self._open.append(self._text(line))
        else:
            self._keyword(line)

    def finish(self) -> None:
        """Raises FormatError where the last entry is cut off."""
        self._close()

    def _comment(self, line: str) -> None:
        if self._draft is not None and "msgstr" in self._kinds():
            self._close()
        if line.startswith("#~"):
            self._fuzzy = False  # the flag was of this obsolete entry
        elif line.startswith("#,"):
            self._fuzzy |= "fuzzy" in (flag.strip() for flag in line[2:].split(","))

    def _keyword(self, line: str) -> None:
        found = _KEYWORD.match(line)
        if found is None:
            self._refuse(f"{line[:30]!r} is no keyword with a text")
        kind, index = found[1], found[2]
        if index is not None and kind != "msgstr":
            self._refuse(f"{kind} has a number")
        key = kind if index is None else f"msgstr {int(index)}"
        if self._draft is None or ("msgstr" in self._kinds() and kind in ("msgctxt", "msgid")):
            self._close()
            self._begin(kind)
        self._check_order(kind, key)
        assert self._draft is not None
        self._open = self._draft.parts.setdefault(key, [])
        self._open.append(self._text(line[found.end() :]))

    def _begin(self, kind: str) -> None:
        if kind not in ("msgctxt", "msgid"):
            self._refuse(f"{kind} without a msgid")
        self._draft = _Draft(self._line, fuzzy=self._fuzzy)
        self._fuzzy = False

    def _check_order(self, kind: str, key: str) -> None:
        assert self._draft is not None
        parts = self._draft.parts
        if key in parts:
            self._refuse(f"{kind} a second time in one entry")
        numbered = key.startswith("msgstr ")
        fits = {
            "msgctxt": not parts,
            "msgid": parts.keys() <= {"msgctxt"},
            "msgid_plural": "msgid" in parts and "msgstr" not in self._kinds(),
            "msgstr": "msgid" in parts and numbered == ("msgid_plural" in parts),
        }
        if not fits[kind]:
            self._refuse(f"{kind} where none may stand")
        if numbered and key != f"msgstr {sum(part.startswith('msgstr') for part in parts)}":
            self._refuse("the plural forms are not numbered 0, 1, 2 ...")

    def _close(self) -> None:
        draft, self._draft, self._open = self._draft, None, None
        if draft is None:
            return
        texts = {key: "".join(parts) for key, parts in draft.parts.items()}
        forms = [text for key, text in texts.items() if key.startswith("msgstr")]
        if not forms:
            self._refuse("an entry without a msgstr", draft.line)
        if len(forms) > MAX_PLURALS:
            self._refuse(f"more than {MAX_PLURALS} plural forms", draft.line)
        if not texts["msgid"] and "msgctxt" not in texts:
            if self.headers is not None:
                self._refuse("a second header (an empty msgid)", draft.line)
            self.headers = parse_headers(forms[0])
            return
        if len(self.entries) == MAX_ENTRIES:
            self._refuse(f"more than {MAX_ENTRIES:,} entries", draft.line)
        self.entries.append(
            Entry(
                source=texts["msgid"],
                translations=tuple(forms),
                plural=texts.get("msgid_plural"),
                context=texts.get("msgctxt"),
                fuzzy=draft.fuzzy,
                line=draft.line,
            )
        )

    def _kinds(self) -> set[str]:
        return {key.partition(" ")[0] for key in self._draft.parts} if self._draft else set()

    def _text(self, line: str) -> str:
        if not _STRINGS.fullmatch(line):
            self._refuse("a text that is not closed, or has something behind it")
        return _ESCAPE.sub(self._character, "".join(_STRING.findall(line)))

    def _character(self, found: re.Match[str]) -> str:
        code = found[1]
        if code in _ESCAPED:
            return _ESCAPED[code]
        if code[0] not in "x01234567" or code == "x":
            self._refuse(f"\\{code} is no escape")
        value = int(code[1:], 16) if code[0] == "x" else int(code, 8)
        # Above, such an escape is a byte of the character set, and perhaps half a character.
        if not 0 < value < 0x80:
            self._refuse(f"\\{code} is no ASCII character")
        return chr(value)

    def _refuse(self, fact: str, line: int | None = None) -> NoReturn:
        raise FormatError(f"{self.name} line {line or self._line}: {fact}", hint=HINT)
