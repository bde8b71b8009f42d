"""Rows come out as `train` and `eval` read them, each with where it is from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterhub.domain.gettext import Catalog, Entry, Package
from adapterhub.errors import DataError, UsageError
from adapterhub.formats.rows import read_rows, row_to_messages
from adapterhub.translation.corpus import (
    Corpus,
    check_template,
    default_template,
    make_corpus,
    rows,
    sources,
)


def package(name: str, texts: dict[str, str]) -> Package:
    entries = tuple(Entry(source=s, translations=(t,), context="menu") for s, t in texts.items())
    return Package(
        name=name, version="1", licence="MIT", catalogs=(Catalog(name="ko.po", entries=entries),)
    )


APP = package("app", {"Open": "열기", "Save": "저장", "OK": "OK"})
OTHER = package("other", {"Open!": "엽니다!", "Leave now": "나가기"})


def corpus() -> Corpus:
    return make_corpus([APP], [OTHER], language="ko", template=default_template("ko"))


def test_a_row_is_a_question_its_answer_and_where_they_are_from(tmp_path: Path) -> None:
    made = corpus()
    path = tmp_path / "train.jsonl"
    path.write_bytes(rows(made, made.train))
    ((line, row),) = read_rows(path)
    messages, answer = row_to_messages(row, line, path.name)
    assert (messages[0].content, answer) == ("Translate to Korean: Save", "저장")
    assert row["source"] == {
        "package": "app",
        "version": "1",
        "licence": "MIT",
        "catalog": "ko.po",
        "context": "menu",
    }


def test_a_package_that_is_held_out_shares_no_text_with_the_others() -> None:
    made = corpus()
    assert [pair.source for pair in made.held_out] == ["Open!", "Leave now"]
    assert made.left_out == {
        "identical to the source": 1,
        "nearly the same on both sides of the split": 1,
    }


def test_the_same_packages_make_the_same_bytes() -> None:
    assert rows(corpus(), corpus().train) == rows(corpus(), corpus().train)


def test_the_sources_are_counted() -> None:
    told = sources(corpus())
    assert json.loads(json.dumps(told)) == told
    assert [
        (p["name"], p["entries"], p["held_out_whole"], p["catalogs"]) for p in told["packages"]
    ] == [
        ("app", 3, False, [{"name": "ko.po", "entries": 3, "train": 1, "held_out": 0}]),
        ("other", 2, True, [{"name": "ko.po", "entries": 2, "train": 0, "held_out": 2}]),
    ]
    assert {name: file["rows"] for name, file in told["files"].items()} == {
        "train.jsonl": 1,
        "held-out.jsonl": 2,
    }


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="app is named twice"):
        make_corpus([APP, APP], [], language="ko", template="{source}")
    with pytest.raises(DataError, match="no pair is left: identical to the source"):
        make_corpus([package("x", {"OK": "OK"})], [], language="ko", template="{source}")
    for template in ("Translate", "{source} {source}"):
        with pytest.raises(UsageError, match=r"does not say \{source\} once"):
            check_template(template)
