"""Tokens, one per endpoint: found in the environment or in a file only their owner can read.

Never prints one. A login made with the `hf` command is the business of the store that uses it, and
like `HF_TOKEN` it is for the public Hugging Face Hub, whatever HF_ENDPOINT says.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from adapterhub.errors import FormatError, StorageError, UsageError
from adapterhub.hub.files import atomic_write, disk, read_bytes
from adapterhub.hub.home import credentials_path
from adapterhub.hub.locks import write_lock
from adapterhub.hub.remotes import PUBLIC_HUB, normal_uri, remotes, token_variable

_LIMIT = 1 << 20
_OWNER_ONLY = 0o600
_VISIBLE = re.compile(r"[\x21-\x7e]{8,4096}")


@dataclass(frozen=True, slots=True)
class Token:
    """A secret and where it came from; only the latter is ever shown."""

    secret: str = field(repr=False)
    source: str


def token_for(endpoint: str) -> Token | None:
    """The token to show to this endpoint and to no other.

    Raises UsageError when there is one and the line to the endpoint is open to listeners.
    """
    uri = normal_uri(endpoint)
    token = _from_environment(uri) or _from_file(uri)
    if token is not None:
        _check_line(uri)
    return token


def store_token(endpoint: str, secret: str) -> None:
    """Remember a token. Raises UsageError for one that cannot go into a header."""
    uri = normal_uri(endpoint)
    if not _VISIBLE.fullmatch(secret):
        raise UsageError(
            "that is not a token: it is too short, or has spaces or special characters",
            hint="copy it again from the settings page of the hub",
        )
    _check_line(uri)
    with write_lock(credentials_path().with_suffix(".lock")):
        _save({**_stored(), uri: secret})


def forget_token(endpoint: str) -> bool:
    """Delete the stored token of an endpoint; False when there was none."""
    uri = normal_uri(endpoint)
    with write_lock(credentials_path().with_suffix(".lock")):
        tokens = _stored()
        if uri not in tokens:
            return False
        _save({key: secret for key, secret in tokens.items() if key != uri})
    return True


def _from_environment(uri: str) -> Token | None:
    for remote in remotes().values():
        variable = token_variable(remote.name)
        secret = os.environ.get(variable, "").strip()
        if secret and remote.uri == uri:
            return Token(secret, variable)
    secret = os.environ.get("HF_TOKEN", "").strip()
    return Token(secret, "HF_TOKEN") if secret and uri == PUBLIC_HUB else None


def _check_line(uri: str) -> None:
    """A token goes over https, or to this very machine."""
    parts = urlsplit(uri)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise UsageError(
            f"a token for {uri} would cross the network in the clear, so it is not sent",
            hint="use its https:// address, or adapterhub remote logout NAME to ask without one",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_file(uri: str) -> Token | None:
    secret = _stored().get(uri)
    return None if secret is None else Token(secret, str(credentials_path()))


def _stored() -> dict[str, str]:
    path = credentials_path()
    data = read_bytes(path, limit=_LIMIT)
    if data is None:
        return {}
    with disk("read", path):
        mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise StorageError(f"others can read the tokens in {path}", hint=f"chmod 600 {path}")
    try:
        table = tomllib.loads(data.decode()).get("tokens", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        # Without its cause: a parser's message may quote the line that holds the token.
        raise FormatError(f"{path} is not TOML", hint=f"delete {path} and log in again") from None
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise FormatError(f"{path}: `tokens` is not a table of strings", hint=f"delete {path}")
    return table


def _save(tokens: dict[str, str]) -> None:
    import tomli_w

    text = tomli_w.dumps({"tokens": dict(sorted(tokens.items()))})
    atomic_write(credentials_path(), text.encode(), mode=_OWNER_ONLY)
