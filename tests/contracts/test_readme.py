"""What the readmes promise: exit codes that exist, and commands and options that exist."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from adapterhub import errors
from adapterhub.cli.main import cli

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [page for page in (README, *ROOT.glob("*/README.md")) if page.is_file()]
FENCE = re.compile(r"^```(?:console|bash|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(adapterhub [^`\n]+)`(?!`)")
# Not errors of ours: success, Ctrl-C, a closed pipe, SIGTERM.
SIGNALS = {0, 130, 141, 143}
CODES = {
    kind.exit_code
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, errors.AdapterhubError)
}


def blocks(page: Path) -> Iterator[str]:
    """Every line of a console block that is a command, continued lines joined."""
    for block in FENCE.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            text = line.removeprefix("$ ")
            if line.startswith("$ ") or text.startswith("adapterhub"):
                yield text


def shell_words(text: str) -> list[str]:
    """The words of a line as a shell sees them, operators apart and comments gone."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    return list(lexer)


def calls(lines: Iterable[str]) -> list[str]:
    """Every call of adapterhub in these lines, without the name itself."""
    found = []
    for text in lines:
        part: list[str] = []
        for word in (*shell_words(text), ";"):
            if not set(word) <= set("|&;<>"):
                part.append(word)
                continue
            # VARIABLE=value may stand before a command.
            while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
                del part[0]
            if part and Path(part[0]).name == "adapterhub":
                found.append(shlex.join(part[1:]))
            part = []
    return list(dict.fromkeys(found))


def resolve(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The command that words name, and what is left of them. Raises our UsageError or click's."""
    command: click.Command = cli
    context = click.Context(cli, info_name="adapterhub")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, parent=context, info_name=command.name)
    return command, context, words


def fault(call: str, *, whole: bool = True) -> str | None:
    """Why click would refuse a call, judged by names and numbers of options and arguments.

    A sentence may name a command without its arguments, so that not the `whole` call is there.
    """
    try:
        command, context, words = resolve(shlex.split(call))
        values, left, _ = command.make_parser(context).parse_args(words)
    except (click.UsageError, errors.UsageError) as error:
        return str(error)
    given = {
        name for name, value in values.items() if isinstance(value, (str, list, tuple)) and value
    }
    missing = [p.human_readable_name for p in command.params if p.required and p.name not in given]
    if left and not isinstance(command, click.Group):
        return f"too many words: {' '.join(left)}"
    if missing and whole and "--help" not in words:
        return f"missing: {', '.join(missing)}"
    return None


def label(value: str | Path) -> str:
    return value if isinstance(value, str) else value.relative_to(ROOT).as_posix()


def test_the_readme_lists_every_exit_code_and_no_other() -> None:
    table = README.read_text().partition("| code | meaning |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\|([\d, ]+)\|", table, re.MULTILINE)
    codes = [int(code) for row in rows for code in row.split(",")]
    assert len(codes) == len(set(codes))
    assert set(codes) == CODES | SIGNALS


@pytest.mark.parametrize(
    ("page", "call"), [(page, call) for page in PAGES for call in calls(blocks(page))], ids=label
)
def test_a_command_on_a_page_exists_with_its_options(page: Path, call: str) -> None:
    assert fault(call) is None


@pytest.mark.parametrize(
    ("page", "call"),
    [(page, call) for page in PAGES for call in calls(INLINE.findall(page.read_text()))],
    ids=label,
)
def test_a_command_in_a_sentence_exists_with_its_options(page: Path, call: str) -> None:
    assert fault(call, whole=False) is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("pul x", "there is no command 'pul'"),
        ("base lst", "No such command 'lst'"),
        ("pull x --jsn", "No such option"),
        ("pull", "missing: REF"),
        ("pull a b", "too many words: b"),
        ("run x --seed", "requires an argument"),
    ],
)
def test_the_check_above_would_notice(call: str, said: str) -> None:
    assert said in (fault(call) or "")
