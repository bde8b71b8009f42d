"""A home and a hub for one hostile input: files put where ours would be, answers where a hub's are.

Nothing leaves the process: the client library is given a transport that answers from memory.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from adapterhub.hub.home import HOME_VARIABLE

ENDPOINT = "https://hub.example"


@contextlib.contextmanager
def home(files: Mapping[str, bytes] | None = None) -> Iterator[Path]:
    """A machine's own folder that holds these files, readable by their owner alone."""
    path = Path(_folder().name, "home")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, data in (files or {}).items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o600)
    before = {name: os.environ.pop(name, None) for name in (HOME_VARIABLE, "HF_ENDPOINT")}
    os.environ[HOME_VARIABLE] = str(path)
    os.environ["HF_ENDPOINT"] = ENDPOINT
    try:
        yield path
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def hub(api: bytes, files: Mapping[str, bytes]) -> Iterator[None]:
    """A hub whose every answer about repositories is `api`, and which has these files."""
    from huggingface_hub import close_session, set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    client = _client_library()

    def answer(request: Any) -> Any:
        if request.url.path.startswith("/api/"):
            json_type = {"Content-Type": "application/json"}
            return client.Response(200, content=api, headers=json_type)
        data = files.get(request.url.path.rpartition("/")[2])
        return client.Response(404) if data is None else client.Response(200, content=data)

    transport = client.MockTransport(answer)
    set_client_factory(lambda: client.Client(transport=transport, trust_env=False))
    try:
        yield
    finally:
        close_session()
        set_client_factory(default_client_factory)


@cache
def _client_library() -> Any:
    """Its name changed between releases 1 and 2 of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    parent: Callable[..., Any] = HfHubHTTPError.__mro__[1]
    return importlib.import_module(parent.__module__.partition(".")[0])


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    # In memory where there is such a place: these files are written, synced and gone at once.
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(
        prefix="fuzz-home-", dir=memory if os.access(memory, os.W_OK) else None
    )
