"""Find out which remote has an adapter, and say plainly when none does.

Without a remote in the ref, `local` is asked first and the default hub second.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from adapterhub.domain.protocols import Snapshot, Store
from adapterhub.domain.refs import Ref
from adapterhub.errors import (
    NotFoundError,
    RemoteError,
    UnknownRevisionError,
    UnreachableError,
)
from adapterhub.hub import remotes
from adapterhub.hub.remotes import Remote
from adapterhub.plugin.catalog import catalog


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """The remote that answered, its store, and the commit."""

    remote: Remote
    store: Store
    snapshot: Snapshot


def open_remote(remote: Remote) -> Store:
    """The store behind a remote; touches nothing yet."""
    return catalog().open_store(remote.uri)


def places(ref: Ref) -> tuple[Remote, ...]:
    """The remotes to ask for a ref, in order."""
    if ref.remote is not None:
        return (remotes.remote(ref.remote),)
    return (remotes.local(), remotes.default_hub())


def locate(ref: Ref) -> Located:
    """Raises NotFoundError (with a did-you-mean), UnknownRevisionError, or UnreachableError when
    a remote that might have the adapter gives no answer."""
    asked: list[Remote] = []
    unknown_revision: UnknownRevisionError | None = None
    for remote in places(ref):
        store = open_remote(remote)
        try:
            snapshot = store.resolve(ref)
        except UnknownRevisionError as error:
            unknown_revision = unknown_revision or error
        except NotFoundError:
            pass
        except UnreachableError as error:
            raise _no_answer(ref, asked, error, unknown_revision) from error
        else:
            return Located(remote=remote, store=store, snapshot=snapshot)
        asked.append(remote)
    if unknown_revision is not None:
        raise unknown_revision
    raise _not_found(ref, asked)


def _no_answer(
    ref: Ref,
    asked: Sequence[Remote],
    error: UnreachableError,
    unknown_revision: UnknownRevisionError | None,
) -> RemoteError:
    """Both facts: who has it not, and who could not be asked."""
    without = " and ".join(remote.name for remote in asked)
    if not without:
        return error
    what = f"this revision of {ref.id}" if unknown_revision else ref.id
    close = _close(ref, asked) if not unknown_revision else None
    return UnreachableError(
        f"{without} has no {what}, and {error.message}",
        hint=f"did you mean {close}?" if close else error.hint,
    )


def _not_found(ref: Ref, asked: Sequence[Remote]) -> NotFoundError:
    where = " or ".join(f"{remote.name} ({remote.uri})" for remote in asked)
    close = _close(ref, asked)
    login = next((f"adapterhub remote login {r.name}" for r in asked if _is_hub(r)), None)
    hint = f"did you mean {close}?" if close else f"adapterhub search {ref.name}"
    if login and not close:
        hint += f"; if it is private: {login}"
    return NotFoundError(f"no adapter is called {ref.id} on {where}", hint=hint)


def _close(ref: Ref, asked: Sequence[Remote]) -> str | None:
    close = difflib.get_close_matches(ref.id, _names(ref, asked), n=1, cutoff=0.7)
    return close[0] if close else None


def _names(ref: Ref, asked: Sequence[Remote]) -> list[str]:
    found: list[str] = []
    for remote in asked:
        # A hub lists millions: there only the namespace is looked through.
        namespace = ref.namespace if _is_hub(remote) else None
        try:
            found += open_remote(remote).names(namespace)
        except RemoteError:
            continue
    return found


def _is_hub(remote: Remote) -> bool:
    return not remote.uri.startswith("file:")
