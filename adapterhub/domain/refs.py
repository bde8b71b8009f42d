"""Names of adapters: `[remote:]namespace/name[@revision]`.

Knows the grammar only; whether anything answers to a name is the hub's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from adapterhub.errors import UsageError

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
_REMOTE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
# Windows refuses these as file names whatever their extension, and a name becomes a folder.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ref:
    """One adapter's name; `remote` and `revision` are None when the person left them open."""

    namespace: str
    name: str
    remote: str | None = None
    revision: str | None = None

    @property
    def id(self) -> str:
        """`namespace/name`, the part a remote knows."""
        return f"{self.namespace}/{self.name}"

    def at(self, revision: str) -> Ref:
        return replace(self, revision=revision)

    def on(self, remote: str) -> Ref:
        return replace(self, remote=remote)

    def __str__(self) -> str:
        prefix = f"{self.remote}:" if self.remote else ""
        suffix = f"@{self.revision}" if self.revision else ""
        return f"{prefix}{self.id}{suffix}"


def parse_ref(text: str) -> Ref:
    """Parse a ref. Raises UsageError, naming the rule that was broken."""
    head, at, revision = text.partition("@")
    remote, colon, path = head.rpartition(":")
    parts = path.split("/")
    if len(parts) != 2:
        raise UsageError(
            f"{text!r} is not the name of an adapter",
            hint="names look like user/en2ko-lora, user/en2ko-lora@v1 or team:user/en2ko-lora",
        )
    for part in parts:
        _check_part(part, text)
    if colon and not _REMOTE.fullmatch(remote):
        raise UsageError(
            f"{remote!r} in {text!r} is not the name of a remote",
            hint="remotes are lower-case words; `adapterhub remote list` shows yours",
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise UsageError(
            f"{revision!r} in {text!r} is not a revision",
            hint="a revision is a commit, a tag or a branch, as in user/en2ko-lora@v1",
        )
    return Ref(
        namespace=parts[0],
        name=parts[1],
        remote=remote if colon else None,
        revision=revision if at else None,
    )


def _check_part(part: str, text: str) -> None:
    if not _PART.fullmatch(part) or ".." in part or "--" in part:
        raise UsageError(
            f"{part!r} in {text!r} is not a valid name",
            hint="letters, digits, '-', '_' and '.', up to 96, starting and ending with a letter "
            "or digit, no '..' or '--'",
        )
    if part.split(".", maxsplit=1)[0].lower() in _RESERVED or part.lower().endswith(".git"):
        raise UsageError(f"{part!r} in {text!r} is a reserved name", hint="choose another name")
