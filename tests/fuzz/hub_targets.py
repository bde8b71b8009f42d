"""The readers of what a hub answers, of shared registries, of projects and of our own records.

Each is asked through the disk or the client library, and where a command shows what was read, by
that command.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import click

from adapterhub.cli.commands.list import list_
from adapterhub.cli.commands.search import search
from adapterhub.cli.commands.show import show
from adapterhub.domain.digest import digest_of
from adapterhub.domain.lock import (
    Lock,
    LockedAdapter,
    LockedFile,
    LockedPlugin,
    LockedRepository,
    Wanted,
    disagreement,
)
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot
from adapterhub.errors import AdapterhubError, RemovedError
from adapterhub.formats.lock_file import decode_lock, encode_lock, with_wanted
from adapterhub.hub.client import pull
from adapterhub.hub.credentials import token_for
from adapterhub.hub.index import DOCUMENTS, matches, summarise
from adapterhub.hub.project import read_lock, read_wanted
from adapterhub.hub.records import Record, folder_for
from adapterhub.hub.remotes import local, remotes
from adapterhub.hub.sealed import encode_plain, encode_sealed
from adapterhub.hub.stores.commits import Commit, Identity, Tombstone
from adapterhub.hub.stores.directory import DirectoryStore
from adapterhub.hub.stores.huggingface import HuggingFaceStore
from adapterhub.hub.sync import sync
from adapterhub.hub.verify import verify_folder
from adapterhub.trust.verdict import PROBE_MISMATCH, Verdict, keep_verdict, kept_verdict
from tests.adapter_files import CONFIG, lora_tensors, safetensors
from tests.fuzz.places import ENDPOINT, home, hub
from tests.fuzz.target import Target
from tests.hub_memory import sibling

_SHA = "0f" * 32
_COMMIT = "a" * 40
_REF = Ref(namespace="acme", name="tiny")
_ADAPTER = {
    "adapter_config.json": json.dumps(CONFIG).encode(),
    "adapter_model.safetensors": safetensors(lora_tensors()),
}


def _shown(command: click.Command, *arguments: str) -> None:
    """The command's answer, for people and for programs."""
    for form in ((), ("--json",)):
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            command.main([*arguments, *form], standalone_mode=False)


# --- what a hub answers -----------------------------------------------------------------------


def _repository(data: bytes) -> None:
    with home(), hub(data, _ADAPTER):
        _shown(show, "hub:acme/tiny")
        pull(_REF.on("hub"))
        _shown(list_)


def _listing(data: bytes) -> None:
    with home(), hub(data, {}):
        HuggingFaceStore(ENDPOINT).names()
        _shown(search, "tiny", "--remote", "hub")


def _document(data: bytes) -> None:
    """One of the files that a listing is made of, as each of them."""
    snapshot = Snapshot(ref=_REF, commit=_COMMIT, repo_uuid="u", files=())
    for name in DOCUMENTS:
        summary = summarise(snapshot, {name: data}.get)
        matches(summary, "lora", "acme/tiny")


# --- a registry in a folder -------------------------------------------------------------------


def _registry(commit: bytes, **records: bytes) -> dict[str, bytes]:
    """The commit is filed under the name that it would have to have."""
    try:
        name = digest_of(json.loads(commit))
    except (ValueError, RecursionError):
        name = _SHA
    place = "registry/repos/acme/tiny"
    return {
        f"{place}/repo.json": records.get("identity", encode_sealed(_IDENTITY)),
        f"{place}/refs/main": records.get("head", name[:40].encode()),
        f"{place}/commits/{name[:40]}.json": commit,
        **{
            f"registry/objects/{(sha := hashlib.sha256(data).hexdigest())[:2]}/{sha}": data
            for data in _ADAPTER.values()
        },
    }


def _asked_locally(files: dict[str, bytes]) -> None:
    with home(files):
        _shown(search, "--remote", "local")
        pull(_REF.on("local"))


def _tombstone(data: bytes) -> None:
    with home({"registry/removed/acme/tiny/u.json": data}):
        try:
            DirectoryStore(local().uri).resolve(_REF)
        except RemovedError:  # as it should say of a good one
            return
    raise AssertionError("what was removed is there")


# --- a project, and our own records -----------------------------------------------------------


def _wanted(data: bytes) -> None:
    with home({"adapters.toml": data}) as project:
        wanted = read_wanted(project)
        disagreement(wanted, Lock())
    with_wanted(data, "more", Wanted(ref="acme/more"))


def _lock(data: bytes) -> None:
    with home({"adapters.lock": data}) as project:
        lock = read_lock(project)
        assert lock is not None
        with contextlib.suppress(AdapterhubError):  # nothing of it is here
            sync(lock, offline=True)
    assert {item.name for item in decode_lock(encode_lock(lock)).adapters} == {
        item.name for item in lock.adapters
    }


def _record(data: bytes) -> None:
    with home():
        folder = folder_for(ENDPOINT, _REF, _COMMIT)
        folder.mkdir(parents=True)
        folder.with_name(f"{folder.name}.json").write_bytes(data)
        _shown(list_)


def _verdict(data: bytes) -> None:
    with home({"cache/verdicts/key.json": data}):
        verdict = kept_verdict("key")
        if verdict is not None:
            str(verdict)
            verdict.refuse("acme/tiny", allow={PROBE_MISMATCH})


def _remotes(data: bytes) -> None:
    with home({"config.toml": data}):
        remotes()
        token_for(ENDPOINT)


def _tokens(data: bytes) -> None:
    with home({"credentials.toml": data}):
        token_for(ENDPOINT)


# --- a folder with one file changed -----------------------------------------------------------


def _folder(name: str, data: bytes) -> None:
    with home({f"one/{file}": good for file, good in (_ADAPTER | {name: data}).items()}) as path:
        report = verify_folder(path / "one")
        assert all(problem.code and problem.message for problem in report.problems)
        _shown(show, str(path / "one"))


_IDENTITY = Identity(uuid="7" * 32, created="2026-01-01T00:00:00.000000+00:00")
_FILES = tuple(
    FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    for path, data in _ADAPTER.items()
)
_MADE = Commit(repo=_IDENTITY.uuid, files=_FILES, message="m", created=_IDENTITY.created)
_GOOD_COMMIT = encode_plain(_MADE)
_BASE = BaseRecord(id="acme/base", revision="a" * 40, family="llama")
_LOCKED = LockedRepository(
    ref="acme/tiny",
    remote="local",
    repo_uuid=_IDENTITY.uuid,
    commit=_COMMIT,
    method="lora",
    files=tuple(LockedFile(path=f.path, size=f.size, sha256=f.sha256 or "") for f in _FILES),
)
_LOCK = Lock(
    adapters=(
        LockedAdapter(
            name="tiny",
            wanted=Wanted(ref="acme/tiny", remote="local", revision="v1", allow=("wrong-base",)),
            adapter=_LOCKED,
            base=_BASE,
            plugins=(LockedPlugin(brings="lora", distribution="adapterhub", version="1"),),
            members=(replace(_LOCKED, ref="acme/other"),),
        ),
    )
)
_RECORD = Record(
    remote="hub",
    uri=ENDPOINT,
    namespace="acme",
    name="tiny",
    commit=_COMMIT,
    repo_uuid="u",
    pulled="2026-01-01T00:00:00+00:00",
    entries=_FILES,
)
_INFO = {
    "_id": "u",
    "id": "acme/tiny",
    "sha": _COMMIT,
    "private": False,
    "tags": ["peft", "lora", "base_model:adapter:acme/base"],
    "createdAt": "2026-01-01T00:00:00.000Z",
    "lastModified": "2026-01-02T00:00:00.000Z",
    "siblings": [sibling(path, data) for path, data in _ADAPTER.items()],
}
_VERDICT = Verdict(relative=0.5, flips=0.25, cosine=0.9, strength=1.1)
_BAD_VERDICT = Verdict(code=PROBE_MISMATCH, message="m", hint="h", unprobed="u")
_CARD = b"---\nbase_model: acme/base\ntags: [peft, lora]\n---\n# tiny\n"


def _kept(verdict: Verdict) -> bytes:
    with home() as path:
        keep_verdict("key", verdict)
        return Path(path, "cache/verdicts/key.json").read_bytes()


HUB_TARGETS: dict[str, Target] = {
    "hub-info": Target((json.dumps(_INFO).encode(),), _repository),
    "hub-list": Target((json.dumps([_INFO, {"id": "acme/bare"}]).encode(),), _listing),
    "index": Target((_ADAPTER["adapter_config.json"], _CARD), _document),
    "commit": Target((_GOOD_COMMIT,), lambda data: _asked_locally(_registry(data))),
    "identity": Target(
        (encode_sealed(_IDENTITY), encode_plain(_IDENTITY)),
        lambda data: _asked_locally(_registry(_GOOD_COMMIT, identity=data)),
    ),
    "head": Target(
        (_MADE.id.encode(),),
        lambda data: _asked_locally(_registry(_GOOD_COMMIT, head=data)),
    ),
    "tombstone": Target(
        (encode_sealed(Tombstone(uuid="7" * 32, removed="2026-01-01")),), _tombstone
    ),
    "wanted": Target(
        (b'schema_version = 1\n\n[adapters.tiny]\nref = "acme/tiny"\nbase = "b"\n',), _wanted
    ),
    "lock": Target((encode_lock(_LOCK),), _lock),
    "record": Target((encode_sealed(_RECORD), encode_plain(_RECORD)), _record),
    "verdict": Target((_kept(_VERDICT), _kept(_BAD_VERDICT)), _verdict),
    "remotes": Target((b'[remotes]\nteam = "https://team.example"\n',), _remotes),
    "tokens": Target((f'[tokens]\n"{ENDPOINT}" = "hf_abcdefgh"\n'.encode(),), _tokens),
    "in-folder": Target(
        (_ADAPTER["adapter_config.json"],), lambda data: _folder("adapter_config.json", data)
    ),
}
