"""Languages: their English names, the scripts they are written in, and how folders spell them.

The codes are gettext's: ISO 639, with a region or script where it matters (pt_BR, zh_Hant).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath

from adapterhub.errors import UsageError

NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "ast": "Asturian", "az": "Azerbaijani",
    "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "br": "Breton", "bs": "Bosnian",
    "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "ga": "Irish", "gd": "Scottish Gaelic", "gl": "Galician",
    "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese",
    "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean",
    "ky": "Kyrgyz", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam",
    "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "my": "Burmese", "nb": "Norwegian Bokmål",
    "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian Nynorsk", "pa": "Punjabi", "pl": "Polish",
    "pt": "Portuguese", "pt_BR": "Brazilian Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish",
    "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "zh": "Chinese",
    "zh_CN": "Simplified Chinese", "zh_Hans": "Simplified Chinese",
    "zh_TW": "Traditional Chinese", "zh_Hant": "Traditional Chinese",
}  # fmt: skip
# By the first word of a letter's Unicode name. Of other languages it is what most letters are.
_SCRIPTS = {
    "ko": frozenset({"HANGUL"}),
    "ja": frozenset({"HIRAGANA", "KATAKANA", "CJK"}),
    "zh": frozenset({"CJK"}),
}
_CODE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*(@[A-Za-z]+)?")


def normal(code: str) -> str:
    """`pt-br` and `pt_BR.UTF-8` as one: lower case, with underscores, without an encoding."""
    return code.partition(".")[0].replace("-", "_").lower()


def check_code(code: str) -> None:
    """Raises UsageError for what no language is called."""
    if not _CODE.fullmatch(code):
        raise UsageError(f"{code!r} is not the code of a language", hint="such as --to ko or pt_BR")


def is_code(text: str) -> bool:
    return _CODE.fullmatch(text) is not None


def same_language(code: str, other: str) -> bool:
    """Whether they differ in region, script or variant alone."""
    return re.split(r"[_@]", normal(code))[0] == re.split(r"[_@]", normal(other))[0]


def languages_of(path: str) -> tuple[str, ...]:
    """The languages that a catalog's path may be of: `locale/ko/LC_MESSAGES/x.mo`, `po/ko.po`."""
    parts = PurePosixPath(path)
    if parts.suffix not in (".po", ".mo"):
        return ()
    folder = parts.parent.name
    named = (parts.parent.parent.name,) if folder == "LC_MESSAGES" else (parts.stem, folder)
    return tuple(name for name in named if is_code(name))


def english_name(code: str) -> str:
    """Raises UsageError for a language that is not in the table."""
    known = {normal(key): name for key, name in NAMES.items()}
    found = known.get(normal(code)) or known.get(re.split(r"[_@]", normal(code))[0])
    if found is None:
        raise UsageError(
            f"what {code!r} is called in English is not known here",
            hint='say how to ask for it: --template "Translate to ...: {source}"',
        )
    return found


@cache
def script_of(letter: str) -> str | None:
    """HANGUL, LATIN, CYRILLIC ...; None for what is no letter."""
    if not letter.isalpha():
        return None
    return unicodedata.name(letter, "").partition(" ")[0].partition("-")[0] or None


def scripts_of(code: str, texts: Iterable[str]) -> frozenset[str]:
    """The scripts that text in this language is in; of most of these `texts` where no table says.

    Empty if there is no letter in them.
    """
    known = _SCRIPTS.get(re.split(r"[_@]", normal(code))[0])
    if known is not None:
        return known
    found = Counter(script for text in texts for letter in text if (script := script_of(letter)))
    return frozenset({max(sorted(found), key=found.__getitem__)}) if found else frozenset()
