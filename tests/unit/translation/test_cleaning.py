"""Which messages become pairs, and why the others do not."""

from __future__ import annotations

from collections import Counter

import pytest

from adapterhub.domain.gettext import Catalog, Entry, Package, Pair
from adapterhub.translation.cleaning import clean, fault, once_each

HANGUL = frozenset({"HANGUL"})


def package(*entries: Entry, unreadable: int = 0) -> Package:
    catalog = Catalog(name="ko.po", entries=entries, unreadable=unreadable)
    return Package(name="app", catalogs=(catalog,))


def entry(source: str, *translations: str, plural: str | None = None, fuzzy: bool = False) -> Entry:
    return Entry(source=source, translations=translations, plural=plural, fuzzy=fuzzy)


def pair(source: str, target: str, catalog: str = "a.po") -> Pair:
    return Pair(source=source, target=target, package="app", catalog=catalog)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("Open", "열기", None),
        ("PostgreSQL server", "PostgreSQL 서버", None),
        ("Colo_rs", "색(_R)", None),
        ("Open", " ", "empty or not translated"),
        ("Open", "열기\x1b[31m", "control characters"),
        ("Open", "열\u202e기", "control characters"),
        ("Open " * 300, "열기", "longer than 1,000 characters"),
        ("OK", "OK", "identical to the source"),
        ("%s: %d", "%s： %d", "no word to translate"),
        ("app.labels.open", "열기", "the source is an identifier"),
        ("is_not_open", "열기", "the source is an identifier"),
        ("noun|Open", "열기", "the source carries its context"),
        ("Open %s", "열기", "placeholders disagree"),
        ("Open", "Ouvrir", "no letter of the language's script"),
        ("Use the new editor", "Use the 편집기", "mostly Latin letters"),
    ],
)
def test_a_pair_is_kept_or_has_a_reason(source: str, target: str, reason: str | None) -> None:
    assert fault(source, target, HANGUL) == reason


def test_what_was_left_out_is_counted() -> None:
    found = clean(
        [
            package(
                entry("Open", "열기"),
                entry("Close", "닫기", fuzzy=True),
                entry("Save", ""),
                entry("Print", ""),
                unreadable=2,
            )
        ],
        "ko",
    )
    assert [(p.source, p.target, p.catalog) for p in found.pairs] == [("Open", "열기", "ko.po")]
    assert found.left_out == {"fuzzy": 1, "empty or not translated": 2, "depends on the machine": 2}


def test_plural_forms_pair_with_the_english_ones() -> None:
    def pairs(*translations: str, to: str) -> list[tuple[str, str]]:
        found = clean([package(entry("a file", *translations, plural="%d files"))], to)
        return [(p.source, p.target) for p in found.pairs]

    assert pairs("파일 %d개", to="ko") == [("%d files", "파일 %d개")]
    assert pairs("eine Datei", "%d Dateien", to="de") == [
        ("a file", "eine Datei"),
        ("%d files", "%d Dateien"),
    ]
    assert pairs("файл", "%d файла", "%d файлов", to="ru") == []


def test_composed_and_decomposed_letters_are_the_same_text() -> None:
    decomposed = "\u110b\u1167\u11af\u1100\u1175"  # 열기, letter by letter
    assert clean([package(entry("Open", decomposed))], "ko").pairs[0].target == "열기"


def test_each_source_is_there_once_with_its_most_frequent_translation() -> None:
    left_out: Counter[str] = Counter()
    pairs = [
        pair("Open", "열음"),
        pair("Save", "저장"),
        pair("Open", "열기"),
        pair("Open ", "열기", catalog="b.po"),
    ]
    assert [(p.source, p.target) for p in once_each(pairs, left_out)] == [
        ("Open", "열기"),
        ("Save", "저장"),
    ]
    assert left_out == {
        "the same pair again": 1,
        "a rarer translation of the same source": 1,
    }
