"""The Hugging Face Hub, or any server that speaks its protocol, through huggingface_hub.

Reads bytes and verifies none; tokens come from `credentials`, for this endpoint only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from adapterhub import __version__
from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot, Summary
from adapterhub.errors import (
    AdapterhubError,
    ConflictError,
    NotFoundError,
    RemoteError,
    UsageError,
)
from adapterhub.hub.credentials import token_for
from adapterhub.hub.files import Digests, digests
from adapterhub.hub.index import summary_from_tags
from adapterhub.hub.outgoing import outgoing
from adapterhub.hub.paths import is_wanted
from adapterhub.hub.remotes import PUBLIC_HUB, normal_uri
from adapterhub.hub.stores.answers import RETRIED, translate
from adapterhub.hub.stores.ranges import BACKOFF, Body, Stream, first, pause
from adapterhub.plugin.markers import hookimpl

T = TypeVar("T")
TIMEOUT = 30.0  # seconds without a byte, not for the whole answer
_LISTED = 1000
# What the library raises when an answer is not what it expects, or when its upload engine fails;
# nothing of ours runs in there.
_LIBRARY_ERRORS = (ValueError, KeyError, TypeError, AttributeError, RuntimeError)
_LIBRARY = "peft"  # the tag every card of ours carries, and every adapter peft saved


@hookimpl
def adapterhub_open_store(uri: str) -> HuggingFaceStore | None:
    return HuggingFaceStore(uri) if urlsplit(uri).scheme in ("http", "https") else None


class HuggingFaceStore:
    """`adapterhub.domain.protocols.Store` over HTTP. `backoff` are the seconds between tries."""

    def __init__(self, uri: str, *, backoff: tuple[float, ...] = BACKOFF) -> None:
        self.uri = normal_uri(uri)
        self._backoff = backoff

    def resolve(self, ref: Ref) -> Snapshot:
        what = f"{ref.id}@{ref.revision}" if ref.revision else ref.id
        info = self._ask(
            what,
            lambda api: api.model_info(
                ref.id, revision=ref.revision, files_metadata=True, timeout=TIMEOUT
            ),
        )
        if not (isinstance(info.sha, str) and info.sha) or info.siblings is None:
            raise RemoteError(
                f"{self.uri} names no commit of {ref.id}", hint="ask whoever runs that hub"
            )
        created = info.last_modified
        return Snapshot(
            ref=ref,
            commit=info.sha,
            repo_uuid=_repo_uuid(self.uri, info),
            files=tuple(_entry(sibling, self.uri, ref) for sibling in info.siblings),
            created=created.isoformat() if created else None,
        )

    def read(
        self, snapshot: Snapshot, path: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """Survives dropped connections: each new try goes on where the last one stopped."""
        from huggingface_hub import hf_hub_url

        what = f"{path} of {snapshot.ref.id}"
        url = hf_hub_url(snapshot.ref.id, path, revision=snapshot.commit, endpoint=self.uri)
        end = None if length is None else offset + length
        body = Body(self._stream(url, end), what=what, endpoint=self.uri)
        chunks = body.chunks(
            offset, backoff=self._backoff, fail=lambda error: self._error(error, what)
        )
        return chunks if length is None else first(chunks, length)

    def publish(
        self, ref: Ref, folder: Path, *, message: str, parent: str | None, private: bool = False
    ) -> Snapshot:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        sent = outgoing(folder, name=ref.id).files
        local = {path: digests(source) for path, source in sent.items()}
        bare = Ref(namespace=ref.namespace, name=ref.name, remote=ref.remote)
        current = self._current(bare, parent, private=private)
        there = {entry.path: entry for entry in current.files}
        changed = [path for path in local if not _same(local[path], there.get(path))]
        # Files a pull would never fetch (pictures, .gitattributes) are not ours to delete.
        gone = [path for path in there if path not in local and is_wanted(path)]
        if not changed and not gone:
            return current
        operations = [
            *(CommitOperationAdd(path, str(sent[path])) for path in changed),
            *(CommitOperationDelete(path) for path in gone),
        ]
        made = self._ask(
            ref.id,
            lambda api: api.create_commit(
                ref.id, operations, commit_message=message, parent_commit=current.commit
            ),
            retry=False,
        )
        return self.resolve(bare.at(made.oid))

    def search(self, query: str, *, base: str | None = None, limit: int = 50) -> list[Summary]:
        label = f"base_model:adapter:{base}" if base else _LIBRARY
        listed = self._list(
            f"a search for {query!r}", search=query, filter=label, limit=limit, full=True
        )
        return [_summary(info) for info in listed]

    def names(self, namespace: str | None = None) -> list[str]:
        author = {"author": namespace} if namespace else {}
        listed = self._list("a list of adapters", filter=_LIBRARY, limit=_LISTED, **author)
        return sorted(info["id"] for info in listed)

    def remove(self, ref: Ref) -> None:
        self._ask(ref.id, lambda api: api.delete_repo(ref.id), retry=False)

    def _current(self, ref: Ref, parent: str | None, *, private: bool) -> Snapshot:
        """What is there now, created empty if need be. Raises ConflictError past `parent`."""
        try:
            current = self.resolve(ref)
        except NotFoundError:
            if parent is not None:
                raise
            self._ask(
                ref.id,
                lambda api: api.create_repo(ref.id, private=private or None, exist_ok=True),
                retry=False,
            )
            return self.resolve(ref)
        if private:
            self._check_private(ref)
        if parent is not None and not current.commit.startswith(parent):
            raise ConflictError(
                f"{ref.id} is at {current.commit[:12]}, not at {parent[:12]}",
                hint=f"pull {ref.id}, look at what changed, then push again",
            )
        return current

    def _check_private(self, ref: Ref) -> None:
        """A push never changes who can see what is there, so it must not look as if it did."""
        info = self._ask(ref.id, lambda api: api.model_info(ref.id, timeout=TIMEOUT))
        if not info.private:
            raise UsageError(
                f"{ref.id} is public on {self.uri}, and a push does not hide it",
                hint="make it private on its page first, or push without --private",
            )

    def _token(self) -> str | bool:
        """A string or False: never None, for which the library would look for one itself."""
        from huggingface_hub import get_token

        token = token_for(self.uri)
        if token is not None:
            return token.secret
        # Whoever logged in with `hf auth login` did so there, wherever HF_ENDPOINT points today.
        return (get_token() or False) if self.uri == PUBLIC_HUB else False

    def _ask(self, what: str, question: Callable[[Any], T], *, retry: bool = True) -> T:
        """Put a question to the API; a question that changes nothing is put again on failure."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.uri, token=self._token(), library_name="adapterhub")
        waits = list(self._backoff[:2]) if retry else []
        while True:
            try:
                return question(api)
            except _answer_errors() as error:
                response = getattr(error, "response", None)
                if not waits or getattr(response, "status_code", None) not in RETRIED:
                    raise self._error(error, what) from error
                pause(waits.pop(0), response)

    def _list(self, what: str, **query: str | int | bool) -> list[dict[str, Any]]:
        """One page of models. The library's own listing retries a dead hub for half a minute."""
        from huggingface_hub import get_session, hf_raise_for_status

        def question(_: Any) -> list[dict[str, Any]]:
            response = get_session().get(
                f"{self.uri}/api/models", params=query, headers=self._headers(), timeout=TIMEOUT
            )
            hf_raise_for_status(response)
            return [{**info, "id": str(info["id"])} for info in response.json()]

        return self._ask(what, question)

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": f"adapterhub/{__version__}"}
        token = self._token()
        return {**headers, "Authorization": f"Bearer {token}"} if token else headers

    def _stream(self, url: str, end: int | None) -> Stream:
        from huggingface_hub import get_session, hf_raise_for_status

        # Compressed bodies have other lengths and offsets than the file.
        headers = {**self._headers(), "Accept-Encoding": "identity"}

        def open_at(offset: int) -> Any:
            whole = offset == 0 and end is None
            last = "" if end is None else end - 1
            ranged = headers if whole else {**headers, "Range": f"bytes={offset}-{last}"}
            # The session follows redirects, and drops Authorization when the origin changes.
            return get_session().stream(
                "GET", url, headers=ranged, timeout=TIMEOUT, follow_redirects=True
            )

        return Stream(open_at=open_at, check=hf_raise_for_status, raised=_transport_errors())

    def _error(self, error: BaseException, what: str) -> AdapterhubError:
        token = self._token()
        secret = token if isinstance(token, str) else None
        return translate(error, what=what, endpoint=self.uri, secret=secret)


def _transport_errors() -> tuple[type[BaseException], ...]:
    """The library's own errors and those of its HTTP client, which they are derived from."""
    from huggingface_hub.errors import HfHubHTTPError

    return (HfHubHTTPError.__mro__[1], OSError)


def _answer_errors() -> tuple[type[BaseException], ...]:
    return (*_transport_errors(), *_LIBRARY_ERRORS)


def _entry(sibling: Any, endpoint: str, ref: Ref) -> FileEntry:
    """The library hands on what a hub wrote there, of whatever type."""
    path, lfs = sibling.rfilename, sibling.lfs
    size, digest = (sibling.size, sibling.blob_id) if lfs is None else (lfs.size, lfs.sha256)
    named = isinstance(path, str) and isinstance(digest, str) and digest
    if not named or type(size) is not int:
        raise RemoteError(
            f"{endpoint} gives no name, size or digest for {str(path)[:80]!r} of {ref.id}",
            hint="nothing was written; its bytes could not be verified",
        )
    return FileEntry(
        path=path,
        size=size,
        sha256=None if lfs is None else digest,
        git_blob=digest if lfs is None else None,
    )


def _same(mine: Digests, theirs: FileEntry | None) -> bool:
    if theirs is None or mine.size != theirs.size:
        return False
    if theirs.sha256 is not None:
        return mine.sha256 == theirs.sha256
    return mine.git_blob == theirs.git_blob


def _repo_uuid(endpoint: str, info: Any) -> str:
    """The hub's own id of the repository where the library shows it, else a digest of what a new
    repository of the same name would not share."""
    own = getattr(info, "_id", None)
    if isinstance(own, str) and own:
        return own
    created = info.created_at.isoformat() if info.created_at else ""
    return hashlib.sha256(f"{endpoint}\n{info.id}\n{created}".encode()).hexdigest()[:32]


def _summary(info: dict[str, Any]) -> Summary:
    """What is not of its type is not known."""
    tags = info.get("tags")
    commit, updated = (
        value if isinstance(value, str) else None
        for value in (info.get("sha"), info.get("lastModified"))
    )
    known = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    return summary_from_tags(info["id"], known, commit=commit, updated=updated)
