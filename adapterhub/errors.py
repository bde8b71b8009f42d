"""Every error this project raises on purpose.

An error names the thing, the fact and, as its hint, one next move. It is raised where the fact is
known and turned into two lines and an exit code once, in `adapterhub.cli.main`.

    AdapterhubError                1
    ├── UsageError                 2   what was asked for makes no sense
    ├── NotFoundError              3   no such adapter, base, revision, file, task or plugin
    │   ├── UnknownRevisionError   3
    │   └── RemovedError           3
    ├── IntegrityError             4   bytes are not what they were said to be
    │   └── FormatError            4   a file breaks the rules of its format
    ├── MismatchError              5   two good things do not belong together
    │   └── NoEffectError          5   an adapter that changes nothing
    ├── DataError                  6   a row of training or evaluation data is unusable
    ├── RemoteError                7   a remote did not do its part
    │   ├── UnreachableError       7
    │   ├── DeniedError            7
    │   └── ConflictError          7
    ├── MissingExtraError          8   an optional part of adapterhub is not installed
    ├── StorageError               9   this machine's disk said no
    ├── PluginError               10   a plugin broke its promise
    │   └── CapabilityError       10   a method was asked for what it does not declare
    ├── TrainingError             11   a run diverged, or never trained anything
    ├── VerificationError         12   `verify` found problems, `lint` an error
    └── InterruptedRunError      130   a run was stopped; what it had learnt is kept
        └── TerminatedRunError   143   the same, by SIGTERM

Ctrl-C ends with 130, a closed pipe with 141, SIGTERM with 143: `Terminated`, which like
KeyboardInterrupt stands outside the tree.
"""

from __future__ import annotations

__all__ = [
    "AdapterhubError",
    "CapabilityError",
    "ConflictError",
    "DataError",
    "DeniedError",
    "FormatError",
    "IntegrityError",
    "InterruptedRunError",
    "MismatchError",
    "MissingExtraError",
    "NoEffectError",
    "NotFoundError",
    "PluginError",
    "RemoteError",
    "RemovedError",
    "StorageError",
    "Terminated",
    "TerminatedRunError",
    "TrainingError",
    "UnknownRevisionError",
    "UnreachableError",
    "UsageError",
    "VerificationError",
]


class AdapterhubError(Exception):
    """The root: one sentence of fact, and a hint that is a command or an action."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AdapterhubError):
    exit_code = 2


class NotFoundError(AdapterhubError):
    exit_code = 3


class UnknownRevisionError(NotFoundError):
    """The repository exists; this revision of it does not."""


class RemovedError(NotFoundError):
    """A repository of this name existed and was removed."""


class IntegrityError(AdapterhubError):
    exit_code = 4


class FormatError(IntegrityError):
    """A file breaks its format's rules; `message` names the file."""


class MismatchError(AdapterhubError):
    exit_code = 5


class NoEffectError(MismatchError):
    """The adapter is well formed and changes nothing."""


class DataError(AdapterhubError):
    exit_code = 6


class RemoteError(AdapterhubError):
    exit_code = 7


class UnreachableError(RemoteError):
    """No answer: network down, wrong address, server error."""


class DeniedError(RemoteError):
    """The remote knows us and says no, or wants to know us first."""


class ConflictError(RemoteError):
    """Somebody else published first; nothing was changed."""


class MissingExtraError(AdapterhubError):
    exit_code = 8

    def __init__(self, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs packages that are not installed",
            hint=f'pip install "adapterhub[{extra}]"',
        )


class StorageError(AdapterhubError):
    exit_code = 9


class PluginError(AdapterhubError):
    exit_code = 10


class CapabilityError(PluginError):
    """A method was asked for something it does not declare; never skipped in silence."""


class TrainingError(AdapterhubError):
    exit_code = 11


class VerificationError(AdapterhubError):
    exit_code = 12


class InterruptedRunError(AdapterhubError):
    exit_code = 130


class TerminatedRunError(InterruptedRunError):
    exit_code = 143


class Terminated(BaseException):
    """SIGTERM, raised where the program stands, so that what it holds is put away first."""
