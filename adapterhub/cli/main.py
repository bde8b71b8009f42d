"""The command table and the one edge where errors become two lines and an exit code.

Imports click and our errors; a command's own imports happen when it runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from adapterhub import __version__
from adapterhub.cli.lazy import LazyGroup
from adapterhub.errors import AdapterhubError, MissingExtraError, Terminated

_AT = "adapterhub.cli.commands"
COMMANDS = {
    "pull": (f"{_AT}.pull:pull", "Fetch an adapter and check its bytes."),
    "run": (f"{_AT}.run:run", "Ask an adapter, or a composition of several, something."),
    "train": (f"{_AT}.train:train", "Train an adapter on a frozen base."),
    "gettext": (f"{_AT}.gettext:gettext", "Make rows of the translations that software ships."),
    "design": (f"{_AT}.design:design", "Write a prompt as an adapter: nothing is trained."),
    "eval": (f"{_AT}.evaluate:evaluate", "Compare adapters with their base on the same items."),
    "stack": (f"{_AT}.stack:stack", "Put several adapters together."),
    "merge": (f"{_AT}.merge:merge", "Write a full model with adapters in its weights."),
    "extract": (f"{_AT}.extract:extract", "Turn a fine-tuned model into a LoRA."),
    "convert": (f"{_AT}.convert:convert", "Carry an adapter over to another layout or form."),
    "push": (f"{_AT}.push:push", "Publish an adapter or a composition."),
    "add": (f"{_AT}.add:add", "Note an adapter that a project wants, and lock it."),
    "lock": (f"{_AT}.lock:lock", "Pin all a project wants, as it is now."),
    "sync": (f"{_AT}.sync:sync", "Bring exactly the locked adapters here."),
    "compat": (f"{_AT}.compat:compat", "Say whether adapters go together, and how best."),
    "diff": (f"{_AT}.diff:diff", "Tell what differs between two adapters."),
    "verify": (f"{_AT}.verify:verify", "Check that an adapter is what it says it is."),
    "lint": (f"{_AT}.lint:lint", "Say what a server would refuse or get wrong."),
    "export": (f"{_AT}.export:export", "Write an adapter in another tool's format."),
    "show": (f"{_AT}.show:show", "Tell everything known of an adapter."),
    "tree": (f"{_AT}.tree:tree", "Draw what an adapter was made from."),
    "list": (f"{_AT}.list:list_", "List the adapters on this machine."),
    "search": (f"{_AT}.search:search", "Find adapters on the remotes."),
    "rm": (f"{_AT}.rm:rm", "Remove a pulled adapter, or one from a remote."),
    "base": (f"{_AT}.base:base", "Add, list and show base models."),
    "remote": (f"{_AT}.remote:remote", "Name the places adapters come from."),
    "methods": (
        f"{_AT}.methods:methods",
        "List what plugins offer, or the options of one.",
    ),
    "plugins": (f"{_AT}.plugins:plugins", "List installed plugins; write one, or check one."),
    "doctor": (f"{_AT}.doctor:doctor", "Say what works on this machine."),
    "demo": (f"{_AT}.demo:demo", "See all of it at work on a real 4-bit model."),
}


@contextmanager
def _closed_pipe() -> Iterator[None]:
    """A reader that went away ends the program with 141; click and rich would make it 1."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        # Without this the interpreter complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(141) from stop


class _Edge(LazyGroup):
    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        with _closed_pipe():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_pipe():
            return super().invoke(ctx)


@click.group(
    cls=_Edge,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="adapterhub")
def cli() -> None:
    """Adapters for frozen base models: pull, verify, run, stack, train, evaluate, publish.

    An adapter is named user/name, user/name@revision or remote:user/name. Wherever one is
    expected, a folder or a composition such as a/b+0.5*c/d will do.
    """


def run() -> NoReturn:
    """The console script. Never returns."""
    signal.signal(signal.SIGTERM, _terminated)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # As in arguments: a byte that is no character is refused where the text is used.
        sys.stdin.reconfigure(errors="surrogateescape")
    sys.exit(_outcome())


def _outcome() -> int:
    try:
        result = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (Terminated, KeyboardInterrupt, Exception) as error:
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> int:
    """Say what happened in two lines; return the exit code."""
    if isinstance(error, AdapterhubError):
        return _report(error.message, error.hint, error.exit_code)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    if isinstance(error, click.ClickException):
        return _report(error.format_message().rstrip("."), _usage_hint(error), error.exit_code)
    if isinstance(error, Terminated):
        return _report("stopped by SIGTERM; what was finished is kept", None, 143)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        if error.__cause__ is None:  # the cursor is still behind a question
            click.echo(err=True)
        return _report("interrupted; what was finished is kept", None, 130)
    return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    """A missing extra and a full disk may surface anywhere; all else is a bug of ours."""
    missing = _missing_extra(error)
    if missing is not None:
        return _report(missing.message, missing.hint, missing.exit_code)
    if isinstance(error, OSError) and error.errno is not None:
        from pathlib import Path

        from adapterhub.hub.files import storage_error

        found = storage_error(error, "use", Path(error.filename or "."))
        return _report(found.message, found.hint, found.exit_code)
    if os.environ.get("ADAPTERHUB_DEBUG"):
        raise error
    return _report(
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
        "this is a bug in adapterhub; run it again with ADAPTERHUB_DEBUG=1 and report what it says",
        1,
    )


def _missing_extra(error: BaseException) -> MissingExtraError | None:
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    if package in {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "gguf"}:
        return MissingExtraError("models", needed_for="working with models")
    if package in {"matplotlib", "numpy"}:
        return MissingExtraError("models", needed_for="this command")
    if package in {"regex", "sacrebleu"}:
        return MissingExtraError("models", needed_for="this metric")
    return None


def _report(message: str, hint: str | None, code: int) -> int:
    from adapterhub.cli.output import printable

    click.echo(f"error: {printable(message)}", err=True)
    if hint:
        click.echo(f"hint:  {printable(hint)}", err=True)
    return code


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help shows its options" if context else None


def _terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
