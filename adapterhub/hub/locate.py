"""Find out which remote has an adapter, and say plainly when none does.

Without a remote in the ref, `local` is asked first and the default hub second, but only for names
that `local` never had: another's namesake must not stand in for what is missing here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import Snapshot, Store
from adapterhub.errors import (
    IntegrityError,
    NotFoundError,
    RemoteError,
    RemovedError,
    UnknownRevisionError,
    UnreachableError,
)
from adapterhub.hub import remotes
from adapterhub.hub.remotes import Remote
from adapterhub.plugin.catalog import catalog

_FULL_COMMIT = re.compile(r"[0-9a-fA-F]{40}")


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
    """Raises NotFoundError (with a did-you-mean), UnknownRevisionError or RemovedError from the
    first remote that knows the name, IntegrityError when another commit than the pinned one is
    answered, or UnreachableError when a remote that might have the adapter gives no answer."""
    asked: list[Remote] = []
    for remote in places(ref):
        store = open_remote(remote)
        try:
            snapshot = store.resolve(ref)
        except (UnknownRevisionError, RemovedError) as error:
            raise _known(ref, remote, error) from error
        except NotFoundError:
            pass
        except UnreachableError as error:
            raise _no_answer(ref, asked, error) from error
        else:
            _check_pinned(ref, snapshot, remote)
            return Located(remote=remote, store=store, snapshot=snapshot)
        asked.append(remote)
    raise _not_found(ref, asked)


def _check_pinned(ref: Ref, snapshot: Snapshot, remote: Remote) -> None:
    """A full commit says exactly what is wanted, so nothing else may answer to it."""
    pinned = ref.revision or ""
    if _FULL_COMMIT.fullmatch(pinned) and snapshot.commit != pinned.lower():
        raise IntegrityError(
            f"{remote.uri} answered with commit {snapshot.commit[:64]!r} of {ref.id} when asked "
            f"for {pinned}",
            hint="nothing was written; do not trust that remote, or ask whoever runs it",
        )


def _known(
    ref: Ref, remote: Remote, error: UnknownRevisionError | RemovedError
) -> UnknownRevisionError | RemovedError:
    """Say which remote it was when the ref did not, and how to name the other one."""
    if ref.remote is not None or remote.name == remotes.HUB:
        return error
    other = f"the hub's adapter of that name would be {ref.on(remotes.HUB)}"
    hint = f"{error.hint}; {other}" if error.hint else other
    return type(error)(f"{remote.name} knows that name: {error.message}", hint=hint)


def _no_answer(ref: Ref, asked: Sequence[Remote], error: UnreachableError) -> RemoteError:
    """Both facts: who has it not, and who could not be asked."""
    without = " and ".join(remote.name for remote in asked)
    if not without:
        return error
    close = _close(ref, asked)
    return UnreachableError(
        f"{without} has no {ref.id}, and {error.message}",
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
    # A hub chooses these names, and one of them ends up in a hint.
    return [name for name in found if name.isprintable()]


def _is_hub(remote: Remote) -> bool:
    return not remote.uri.startswith("file:")
