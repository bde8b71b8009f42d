"""Every command explains itself, with the options that are documented, and at once."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.command_line import CommandLine, unstyled

OPTIONS = {
    "pull": "--allow --json",
    "run": "--system --compare --max-new-tokens --temperature --top-p --seed --base --device "
    "--json",
    "train": "--base --data --out --method --trainer --rank --alpha --dropout --targets --steps "
    "--batch-size --accumulate --lr --schedule --max-length --seed --overwrite --allow --device "
    "--json",
    "design": "--out --base --system --template --example --examples --choose --data --score "
    "--trials --validate --seed --overwrite --device --json",
    "gettext": "--to --out --hold-out --template --dry-run --json",
    "eval": "--task --limit --seed --base --device --json",
    "stack": "--from --strategy --weights --rank --search-weights --task --limit --trials --out "
    "--overwrite --device --allow --base --dry-run --json",
    "merge": "--into --out --name --lossy --task --text --limit --no-measure --allow --base "
    "--device --json",
    "extract": "--out --rank --targets --overwrite --device --json",
    "convert": "--out --layout --canonical --rank --family --overwrite --allow --base --device "
    "--json",
    "push": "--to --message --parent --private --allow --dry-run --json",
    "add": "--name --base --allow --json",
    "lock": "--accept --dry-run --json",
    "sync": "--frozen --offline --into --overwrite --json",
    "compat": "--base --picture --allow --json",
    "diff": "--json",
    "verify": "--base --device --json",
    "lint": "--target --base --json",
    "export": "--out --to --base --json",
    "show": "--json",
    "tree": "--json",
    "list": "--json",
    "search": "--remote --base --limit --json",
    "rm": "--remote --yes --dry-run",
    "base": "",
    "base add": "--scheme --json",
    "base list": "--json",
    "base export": "--out --to --json",
    "base show": "--json",
    "base match": "--json",
    "base rm": "--yes",
    "remote": "",
    "remote add": "",
    "remote list": "--json",
    "remote rm": "",
    "remote login": "--token",
    "remote logout": "",
    "methods": "--json",
    "plugins": "--json",
    "plugins new": "--kind --out --json",
    "plugins check": "--option --on --json",
    "doctor": "--network --json",
    "demo": "--gguf --home --steps --items --device --json",
}


@functools.cache
def help_of(command: str) -> str:
    done = CommandLine(Path("/nowhere")).ok(*command.split(), "--help")
    assert done.err == ""
    return done.out


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_the_documented_options(command: str) -> None:
    words = help_of(command).replace(",", " ").split()
    assert help_of(command).startswith(f"Usage: {f'adapterhub {command}'.strip()} ")
    assert [option for option in OPTIONS[command].split() if option not in words] == []


@pytest.mark.parametrize("command", [name for name, options in OPTIONS.items() if options])
def test_every_option_says_what_it_is_for(command: str) -> None:
    section = help_of(command).partition("Options:\n")[2]
    entries = [entry for entry in section.split("\n  -") if entry.strip()]
    silent = [entry for entry in entries if len(entry.partition("  ")[2].split("[")[0].strip()) < 5]
    assert silent == []


@pytest.mark.parametrize("group", [(), ("base",), ("remote",)], ids=str)
def test_a_command_that_needs_another_shows_its_help(
    adapterhub: CommandLine, group: tuple[str, ...]
) -> None:
    done = adapterhub(*group)
    assert done.code == 2
    assert done.out == ""
    assert done.err == adapterhub.ok(*group, "--help").out


@pytest.mark.parametrize("group", [(), ("base",), ("remote",)], ids=str)
def test_no_summary_is_cut_off(group: tuple[str, ...]) -> None:
    commands = help_of(" ".join(group)).partition("Commands:\n")[2]
    assert "..." not in commands


@pytest.mark.parametrize("columns", [100, 60])
def test_help_fits_the_terminal(adapterhub: CommandLine, columns: int) -> None:
    shown = unstyled(adapterhub.on_terminal("train", "--help", columns=columns).out)
    assert max(len(line) for line in shown.splitlines()) <= columns


def test_the_version_is_the_package_s(adapterhub: CommandLine) -> None:
    from adapterhub import __version__

    assert adapterhub.ok("--version").out == f"adapterhub, version {__version__}\n"


def test_help_creates_nothing(adapterhub: CommandLine) -> None:
    adapterhub.ok("pull", "--help")
    assert not adapterhub.home.exists()
