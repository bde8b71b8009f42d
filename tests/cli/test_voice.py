"""Data on stdout, talk on stderr; plain text wherever it is not a person's terminal."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.adapter_files import write_lora
from tests.base_records import write_base_record
from tests.command_line import CommandLine, unstyled

READERS = (
    "list",
    "search",
    "remote list",
    "base list",
    "methods",
    "plugins",
    "show acme/tiny-lora",
)
PLAIN = {
    "NO_COLOR": {"NO_COLOR": "1"},
    "a dumb terminal": {"TERM": "dumb"},
}


def column(line: str, word: str) -> int:
    """At which cell of the screen a word begins."""
    return cell_len(line[: line.index(word)])


@pytest.mark.parametrize("words", READERS)
def test_with_json_stdout_is_one_document_and_nothing_else(
    stocked: CommandLine, words: str
) -> None:
    done = stocked.ok(*words.split(), "--json")
    assert json.loads(done.out) is not None
    assert "next:" not in done.err


def test_without_json_what_to_do_next_is_talk(adapterhub: CommandLine, published: str) -> None:
    done = adapterhub.ok("pull", published)
    assert done.err.splitlines()[-1] == 'next: adapterhub run acme/tiny-lora "..."'
    assert "next:" not in done.out


def test_a_remote_that_is_away_is_mentioned_on_stderr(
    adapterhub: CommandLine, published: str
) -> None:
    done = adapterhub.ok("search", "--json")
    assert [item["id"] for item in done.json] == [published]
    assert done.err == "http://127.0.0.1:9 cannot be reached: Connection refused\n"


@pytest.mark.parametrize("variables", PLAIN.values(), ids=PLAIN)
def test_some_terminals_get_plain_text(stocked: CommandLine, variables: dict[str, str]) -> None:
    shown = stocked.having(**variables).on_terminal("search", "--remote", "local").out
    assert "acme/tiny-lora" in shown
    assert "\x1b[" not in shown.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")


def test_a_pipe_gets_plain_lines_of_any_length(adapterhub: CommandLine, adapter: Path) -> None:
    name = f"acme/{'long-' * 18}name"
    adapterhub.ok("push", adapter, name)
    done = adapterhub.having(COLUMNS="40").ok("search", "--remote", "local")
    header, line = done.out.splitlines()
    assert line.split()[:4] == [name, "local", "lora", "acme/tiny"]
    assert "\x1b" not in done.out
    assert [text for text in (header, line) if text != text.rstrip()] == []


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_tables_fit_a_terminal_of_any_width(adapterhub: CommandLine, columns: int) -> None:
    shown = unstyled(adapterhub.on_terminal("methods", columns=columns).out)
    assert max(cell_len(line) for line in shown.splitlines()) <= columns
    assert "lora" in shown


def test_wide_characters_keep_columns_in_line(adapterhub: CommandLine) -> None:
    for name in ("한국어-베이스", "plain", "日本"):
        write_base_record(adapterhub.home, name)
    header, *lines = adapterhub.ok("base", "list").out.splitlines()
    assert {column(line, "acme/tiny") for line in lines} == {column(header, "from")}
    assert {column(line, "llama") for line in lines} == {column(header, "family")}


def test_wide_characters_keep_columns_in_line_on_a_terminal(adapterhub: CommandLine) -> None:
    for name in ("한국어-베이스", "plain"):
        write_base_record(adapterhub.home, name)
    header, *lines = unstyled(adapterhub.on_terminal("base", "list").out).splitlines()
    assert {column(line, "acme/tiny") for line in lines} == {column(header, "from")}


def test_a_path_in_any_script_is_a_path(adapterhub: CommandLine, tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "한국어 어댑터" / "첫째")
    moved = CommandLine(tmp_path / "집" / "허브")
    moved.ok("push", folder, "acme/tiny-lora", "-m", "첫 번째 판")
    pulled = moved.ok("pull", "acme/tiny-lora", "--json")
    assert str(tmp_path / "집") in pulled.out
    assert adapterhub.ok("verify", folder).out.startswith(f"{folder}   no problem found\n")


def test_a_path_that_is_no_text_is_still_shown(adapterhub: CommandLine, tmp_path: Path) -> None:
    folder = write_lora(Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")))
    done = adapterhub.start("verify", folder, stdout=subprocess.PIPE, errors="replace")
    assert "no problem found" in done.communicate()[0]
    assert done.returncode == 0


@pytest.mark.parametrize("words", [("--help",), ("methods",), ("methods", "--json")], ids=str)
def test_a_reader_that_went_away_ends_it_without_a_word(
    adapterhub: CommandLine, words: tuple[str, ...]
) -> None:
    nobody, pipe = os.pipe()
    os.close(nobody)
    process = adapterhub.start(*words, stdout=pipe, stderr=subprocess.PIPE)
    os.close(pipe)
    assert process.communicate()[1] == ""
    assert process.returncode == 141


def test_a_pipeline_ends_well(adapterhub: CommandLine) -> None:
    line = f"set -o pipefail; {adapterhub.words('methods')[0]} methods | head -n 1"
    done = subprocess.run(
        ["bash", "-c", line], env=adapterhub.environment, capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.returncode in (0, 141)
