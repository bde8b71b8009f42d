"""What a package says of its version and licence: METADATA, or Debian's control and copyright.

Says what is written there, and None where nothing is; what a licence allows is not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.parser import HeaderParser

_LONGEST = 100
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    name: str | None = None
    version: str | None = None
    licence: str | None = None


def python_facts(metadata: str) -> Facts:
    """Of a METADATA or PKG-INFO: License-Expression, else the classifiers, else the first
    line of License."""
    fields = HeaderParser().parsestr(metadata)
    classified = [
        text.rpartition(" :: ")[2]
        for text in fields.get_all("Classifier", [])
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    # Some put the whole text into the field, which begins with the licence's name.
    written = (fields["License"] or "").strip().partition("\n")[0].strip()
    short = written if len(written) <= _LONGEST else None
    return Facts(
        name=fields["Name"],
        version=fields["Version"],
        licence=fields["License-Expression"] or ", ".join(classified) or short or None,
    )


def debian_facts(control: str, copyright_text: str | None) -> Facts:
    """Of a control stanza, and of a copyright file: the licence of `Files: *` (DEP-5), else the
    common licences that the text names."""
    fields = HeaderParser().parsestr(control)
    return Facts(
        name=fields["Package"],
        version=fields["Version"],
        licence=_debian_licence(copyright_text or ""),
    )


def _debian_licence(text: str) -> str | None:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = HeaderParser().parsestr(stanza.lstrip("\n"))
        if "*" in (fields["Files"] or "").split() and fields["License"]:
            return str(fields["License"]).splitlines()[0].strip()
    return ", ".join(dict.fromkeys(_COMMON.findall(text))) or None
