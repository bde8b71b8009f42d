"""Turn what the hub's client library raises into our errors: one line, one next move, no token.

Goes by class names and status codes, so that it needs neither that library nor its HTTP client,
which changed its name between versions 1 and 2.
"""

from __future__ import annotations

import re

from adapterhub.errors import (
    AdapterhubError,
    ConflictError,
    DeniedError,
    NotFoundError,
    RemoteError,
    UnknownRevisionError,
    UnreachableError,
    UsageError,
)

RETRIED = frozenset((408, 429, 500, 502, 503, 504))
_SECRET = re.compile(r"(?i)\b(bearer\s+\S+|hf_\w{6,}|(?:token|signature|sig|key)=[^&\s]+)")
# What a parser raises of an answer: nothing that was asked for is at fault.
_UNREADABLE = frozenset(("JSONDecodeError", "UnicodeDecodeError", "RecursionError"))
_ERRNO = re.compile(r"\[Errno -?\d+\] ")


def translate(
    error: BaseException, *, what: str, endpoint: str, secret: str | None = None
) -> AdapterhubError:
    """`what` names the adapter, and the revision or file, that was asked for."""
    names = {kind.__name__ for kind in type(error).__mro__}
    response = getattr(error, "response", None)
    if response is not None:
        said = getattr(error, "server_message", None) or ""
        status = int(response.status_code)
        return for_status(
            status, names, what=what, endpoint=endpoint, said=clean(str(said), secret)
        )
    return _without_answer(names, what=what, endpoint=endpoint, said=clean(str(error), secret))


def _without_answer(names: set[str], *, what: str, endpoint: str, said: str) -> AdapterhubError:
    """The request never got an HTTP status, or the library could not use what came back."""
    if "OfflineModeIsEnabled" in names:
        return UnreachableError(
            f"{endpoint} was not asked for {what}: HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE, or name a commit that is on this machine",
        )
    if "HFValidationError" in names:
        return UsageError(f"{endpoint} cannot have {what}: {said}")
    if names & {"TimeoutException", "TimeoutError"}:
        return UnreachableError(
            f"{endpoint} did not answer in time when asked for {what}", hint="try again later"
        )
    if names & {"TransportError", "ConnectionError", "HTTPError", "OSError"}:
        return UnreachableError(
            f"{endpoint} cannot be reached: {said or 'no reason given'}",
            hint="check the network and the address: adapterhub remote list",
        )
    if names & {"ValueError", "RuntimeError"} and not names & _UNREADABLE:
        return RemoteError(
            f"{endpoint} cannot take {what}: {said}",
            hint="correct that, then try again",
        )
    return RemoteError(
        f"{endpoint} did not answer like a hub when asked for {what}",
        hint="check the address: adapterhub remote list",
    )


def for_status(
    status: int, names: set[str], *, what: str, endpoint: str, said: str = ""
) -> AdapterhubError:
    """The error for an HTTP status; `names` are the classes the client library gave it."""
    kind, fact, hint = _answer(status, names)
    message = fact.format(what=what, endpoint=endpoint, status=status)
    return kind(f"{message}: {said}" if said and kind in _EXPLAINED else message, hint=hint)


def _answer(status: int, names: set[str]) -> tuple[type[AdapterhubError], str, str]:
    for name, answer in _BY_NAME.items():
        if name in names:
            return answer
    return _BY_STATUS.get(status, _BY_STATUS[500] if status >= 500 else _OTHER)


_MISSING = (
    NotFoundError,
    "{endpoint} has no {what}, or hides it from you",
    "check the name; if it is private: adapterhub remote login NAME",
)
_CONFLICT = (
    ConflictError,
    "{what} changed on {endpoint} meanwhile; nothing was published",
    "pull it, look at what changed, then push again",
)
_FAILED = (
    UnreachableError,
    "{endpoint} failed with status {status} when asked for {what}",
    "try again later",
)
_OTHER = (
    RemoteError,
    "{endpoint} answered {status} when asked for {what}",
    "check the address: adapterhub remote list",
)
# In this order: the library's GatedRepoError is a RepositoryNotFoundError too.
_BY_NAME: dict[str, tuple[type[AdapterhubError], str, str]] = {
    "GatedRepoError": (
        DeniedError,
        "{what} is gated on {endpoint}",
        "ask for access on its page, then: adapterhub remote login NAME",
    ),
    "RevisionNotFoundError": (
        UnknownRevisionError,
        "{endpoint} has no such revision: {what}",
        "leave out the revision for the newest",
    ),
    "RepositoryNotFoundError": _MISSING,
    "EntryNotFoundError": _MISSING,
}
_BY_STATUS: dict[int, tuple[type[AdapterhubError], str, str]] = {
    401: (
        DeniedError,
        "{endpoint} asks for a valid token before it gives {what}",
        "adapterhub remote login NAME",
    ),
    403: (
        DeniedError,
        "{endpoint} does not let you do this with {what}",
        "use a token with the right to it",
    ),
    404: _MISSING,
    408: _FAILED,
    409: _CONFLICT,
    412: _CONFLICT,
    429: (UnreachableError, "{endpoint} asks for fewer requests", "wait a few minutes"),
    500: _FAILED,
}
_EXPLAINED = (DeniedError, UnreachableError, RemoteError)


def clean(text: str, secret: str | None) -> str:
    """One printable line without anything that looks like a credential, at most 200 long."""
    line = _ERRNO.sub("", " ".join("".join(c if c.isprintable() else " " for c in text).split()))
    if secret:
        line = line.replace(secret, "***")
    return _SECRET.sub("***", line)[:200]
