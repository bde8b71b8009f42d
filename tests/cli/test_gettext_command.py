"""From the translations that a package ships to rows that `train` and `eval` take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.formats.rows import read_rows
from tests.catalog_files import HEADER, METADATA, greeter, po, write_wheel
from tests.command_line import CommandLine

OTHER = {"save the file!": "파일 저장", "Nothing to do": "할 일이 없습니다"}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with two packages, of which one has no version and a text near the other's."""
    write_wheel(tmp_path / "greeter.whl")
    other = greeter(OTHER, metadata=METADATA.replace("Greeter", "Other").replace("MIT", ""))
    write_wheel(tmp_path / "other.whl", other)
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def test_rows_are_written_with_a_word_of_each_that_is_not(
    adapterhub: CommandLine, wheels: Path
) -> None:
    done = adapterhub.ok(
        "gettext", "./greeter.whl", "--hold-out", "./other.whl", "--to", "ko", "-o", "en2ko"
    )
    assert [line.split() for line in done.out.splitlines()] == [
        ["package", "version", "licence", "catalogs", "messages", "train", "held", "out"],
        ["Greeter", "1.2", "MIT", "1", "6", "5", "0"],
        ["Other", "1.2", "unknown", "1", "2", "0", "2"],
        ["left", "out", "1", "nearly", "the", "same", "on", "both", "sides", "of", "the", "split"],
        ["en2ko", "train.jsonl", "5,", "held-out.jsonl", "2", "rows"],
    ]
    assert "says nothing of its licence" in done.err
    assert "next: adapterhub train --base NAME --data en2ko/train.jsonl -o NEW" in done.err
    first = rows(wheels / "en2ko" / "train.jsonl")[0]
    assert first["messages"] == [
        {"role": "user", "content": "Translate to Korean: Open a folder"},
        {"role": "assistant", "content": "폴더를 엽니다"},
    ]
    assert first["source"]["licence"] == "MIT"
    assert len(rows(wheels / "en2ko" / "held-out.jsonl")) == 2


def test_json_is_what_the_folder_keeps(adapterhub: CommandLine, wheels: Path) -> None:
    done = adapterhub.ok("gettext", "./greeter.whl", "--to", "ko", "-o", "rows", "--json").json
    assert done.pop("folder") == "rows"
    assert done == json.loads((wheels / "rows" / "sources.json").read_text())
    assert done["files"]["train.jsonl"]["rows"] == 6


def test_a_dry_run_writes_nothing(adapterhub: CommandLine, wheels: Path) -> None:
    done = adapterhub.ok("gettext", "./greeter.whl", "--to", "ko", "-o", "rows", "--dry-run")
    assert done.out.endswith("rows   would hold train.jsonl 6 rows\n")
    assert "nothing is held out" in done.err
    assert not (wheels / "rows").exists()


def test_rows_to_evaluate_on_alone(adapterhub: CommandLine, wheels: Path) -> None:
    template = "Auf Koreanisch: {source}"
    words = ("--hold-out", "./greeter.whl", "--to", "ko", "-o", "rows", "--template", template)
    assert "--task rows/held-out.jsonl" in adapterhub.ok("gettext", *words).err
    assert sorted(path.name for path in (wheels / "rows").iterdir()) == [
        "held-out.jsonl",
        "sources.json",
    ]
    row = rows(wheels / "rows" / "held-out.jsonl")[0]
    assert row["messages"][0]["content"] == "Auf Koreanisch: Save the file"


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        ("--to ko", 2, "no source is named", "adapterhub gettext django --to ko -o rows"),
        ("./greeter.whl --to k", 2, "'k' is not the code of a language", "such as --to ko"),
        ("./greeter.whl --to fr", 3, "./greeter.whl has no catalog in 'fr'", "name an installed"),
        ("./greeter.whl --to ko --template x", 2, "'x' does not say {source} once", "--template"),
        ("./greeter.whl ./greeter.whl --to ko", 2, "Greeter is named twice", "name each"),
        ("./none.whl --to ko", 3, "there is no file or folder none.whl", "check the path"),
        ("./broken.po --to ko", 4, "broken.po line 5: a text that is not closed", "`msgfmt -c`"),
        ("./empty.po --to ko", 6, "no pair is left: the catalogs are empty", "name other"),
    ],
)
def test_what_makes_no_sense_is_two_lines(
    adapterhub: CommandLine, wheels: Path, *, words: str, code: int, error: str, hint: str
) -> None:
    (wheels / "broken.po").write_text(HEADER + 'msgid "a\n')
    empty: Mapping[str, str] = {}
    (wheels / "empty.po").write_bytes(po(empty))
    done = adapterhub("gettext", *words.split(), "-o", "rows")
    assert done.code == code
    assert [
        len(done.complaint),
        done.complaint[0][: len(error)],
        done.complaint[1][: len(hint)],
    ] == [
        2,
        error,
        hint,
    ]
    assert not (wheels / "rows").exists()


def test_what_is_there_is_never_overwritten(adapterhub: CommandLine, wheels: Path) -> None:
    (wheels / "rows").mkdir()
    done = adapterhub("gettext", "./greeter.whl", "--to", "ko", "-o", "rows")
    assert (done.code, done.complaint[0]) == (2, "rows is already there")
