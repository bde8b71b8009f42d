"""What starting up may import and cost, and that the command table tells the truth."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from adapterhub.cli.lazy import LazyGroup
from adapterhub.cli.main import COMMANDS, cli

HELP = """
import sys
from adapterhub.cli.main import run
sys.argv = ["adapterhub", "--help"]
try:
    run()
finally:
    print(*sys.modules, sep="\\n", file=sys.stderr)
"""
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "numpy",
    "pluggy",
    "importlib.metadata",
    "rich",
    "msgspec",
}
LAZY = ("adapterhub.cli.commands.", "adapterhub_plugins", "adapterhub.plugin")
ROUNDS = 7


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def processor_seconds(code: str) -> float:
    """What a child costs, which a busy machine disturbs less than the time on the wall."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def test_help_imports_no_command_no_plugin_and_nothing_heavy() -> None:
    bare = set(run_python("import sys; print(*sys.modules, sep='\\n')").stdout.split())
    found = run_python(HELP)
    assert "Commands:" in found.stdout
    added = set(found.stderr.split()) - bare
    assert added & HEAVY == set()
    assert [name for name in added if name.startswith(LAZY)] == []


def test_help_costs_little_more_than_importing_click() -> None:
    processor_seconds(HELP)  # compiles what was not compiled yet
    pairs = [(processor_seconds(HELP), processor_seconds("import click")) for _ in range(ROUNDS)]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    assert ours <= 1.5 * theirs, f"{ours:.3f} s against {theirs:.3f} s"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    assert isinstance(cli, LazyGroup)
    with cli.make_context("adapterhub", [], resilient_parsing=True) as context:
        command = cli.get_command(context, name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == COMMANDS[name][1]
