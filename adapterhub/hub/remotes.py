"""Named remotes, like git's: a name and the URI of a store.

Two are built in, `local` and `hub`; `config.toml` holds the others. Opens no store.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from adapterhub.errors import FormatError, NotFoundError, UsageError
from adapterhub.hub.files import atomic_write, read_bytes
from adapterhub.hub.home import config_path, registry_dir
from adapterhub.hub.locks import write_lock

LOCAL = "local"
HUB = "hub"
BUILT_IN = (LOCAL, HUB)
PUBLIC_HUB = "https://huggingface.co"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    name: str
    uri: str


def default_hub() -> Remote:
    """`$HF_ENDPOINT`, or the public Hugging Face Hub."""
    return Remote(name=HUB, uri=normal_uri(os.environ.get("HF_ENDPOINT") or PUBLIC_HUB))


def local() -> Remote:
    """The registry in this machine's own folder."""
    return Remote(name=LOCAL, uri=registry_dir().as_uri())


def remotes() -> dict[str, Remote]:
    """Every remote by name, the built-in ones first. Raises FormatError for a bad config file."""
    found = {LOCAL: local(), HUB: default_hub()}
    for name, uri in _configured(_config()).items():
        found[name] = Remote(name=name, uri=uri)
    return found


def remote(name: str) -> Remote:
    """Raises NotFoundError with a did-you-mean."""
    known = remotes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"remotes: {', '.join(known)}"
        raise NotFoundError(f"no remote is called {name!r}", hint=hint)
    return known[name]


def add_remote(name: str, uri: str) -> Remote:
    """Write a remote to the config file. Raises UsageError for a bad or taken name or URI."""
    _check_name(name)
    added = Remote(name=name, uri=normal_uri(uri))
    with write_lock(config_path().with_suffix(".lock")):
        config = _config()
        configured = _configured(config)
        if configured.get(name, added.uri) != added.uri:
            raise UsageError(
                f"the remote {name!r} already is {configured[name]}",
                hint=f"forget it first: adapterhub remote rm {name}",
            )
        twin = _twin(name, configured)
        if twin is not None:
            raise UsageError(
                f"{name!r} and the remote {twin!r} would share the variable {token_variable(name)}",
                hint="choose a name that differs by more than '-' and '_'",
            )
        _save(config, {**configured, name: added.uri})
    return added


def remove_remote(name: str) -> Remote:
    """Take a remote out of the config file; what lies there stays. Returns what it was."""
    if name in BUILT_IN:
        raise UsageError(f"{name!r} is built in", hint="only remotes you added can be removed")
    removed = remote(name)
    with write_lock(config_path().with_suffix(".lock")):
        config = _config()
        _save(config, {key: uri for key, uri in _configured(config).items() if key != name})
    return removed


def token_variable(name: str) -> str:
    """The environment variable with the token of a remote; no two remotes share one."""
    return f"ADAPTERHUB_TOKEN_{name.upper().replace('-', '_')}"


def normal_uri(uri: str) -> str:
    """One spelling per place. Raises UsageError for a URI no store could ever open."""
    try:
        parts = urlsplit(uri)
        sound = parts.port != 0 and uri.isprintable() and parts.scheme != ""
    except ValueError:
        sound = False
    # A file's address has three slashes: with two, its first folder would be a host.
    if not sound or (parts.scheme == "file") == bool(parts.netloc):
        raise UsageError(
            f"{uri!r} is not the address of a remote", hint="file:///path/to/folder or https://host"
        )
    if parts.username or parts.password:
        raise UsageError(
            "a remote's URI must not hold a password",
            hint="keep tokens with: adapterhub remote login NAME",
        )
    path = parts.path.rstrip("/") or ("/" if parts.scheme == "file" else "")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _check_name(name: str) -> None:
    if name in BUILT_IN:
        hint = "set HF_ENDPOINT to use another hub" if name == HUB else "choose another name"
        raise UsageError(f"the remote {name!r} is built in", hint=hint)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not the name of a remote",
            hint="a lower-case letter, then letters, digits, '-' and '_', at most 32",
        )


def _config() -> dict[str, Any]:
    path = config_path()
    data = read_bytes(path, limit=_LIMIT)
    if data is None:
        return {}
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"{path} is not TOML: {error}", hint=f"correct or delete {path}"
        ) from error


def _configured(config: Mapping[str, Any]) -> dict[str, str]:
    """The checked `[remotes]` table: `name = "uri"`."""
    path = config_path()
    unknown = sorted(set(config) - {"remotes"})
    if unknown:
        raise FormatError(f"{path}: unknown key {unknown[0]!r}", hint="known: the table [remotes]")
    table = config.get("remotes", {})
    if not isinstance(table, dict):
        raise FormatError(f"{path}: `remotes` is not a table", hint="write [remotes] above them")
    for name, uri in table.items():
        key = f"{path}: remotes.{name}"
        if not isinstance(uri, str):
            raise FormatError(f"{key} is not a string", hint=f'{name} = "https://host"')
        try:
            _check_name(name)
            normal_uri(uri)
        except UsageError as error:
            raise FormatError(f"{key}: {error.message}", hint=error.hint) from error
        twin = _twin(name, table)
        if twin is not None:
            raise FormatError(
                f"{key}: it shares {token_variable(name)} with {twin!r}", hint="rename one of them"
            )
    return {name: normal_uri(uri) for name, uri in table.items()}


def _twin(name: str, known: Iterable[str]) -> str | None:
    """Another name with the same variable, whose remote would be shown this one's token."""
    mine = token_variable(name)
    return next((other for other in known if other != name and token_variable(other) == mine), None)


def _save(config: Mapping[str, Any], table: Mapping[str, str]) -> None:
    import tomli_w

    text = tomli_w.dumps({**config, "remotes": dict(sorted(table.items()))})
    atomic_write(config_path(), text.encode())
