"""What languages are called, written in and filed under."""

from __future__ import annotations

import pytest

from adapterhub.errors import UsageError
from adapterhub.translation.languages import (
    check_code,
    english_name,
    languages_of,
    same_language,
    scripts_of,
)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("ko", "Korean"),
        ("ko_KR", "Korean"),
        ("pt-br", "Brazilian Portuguese"),
        ("zh_Hant", "Traditional Chinese"),
        ("sr@latin", "Serbian"),
    ],
)
def test_a_language_has_an_english_name(code: str, name: str) -> None:
    assert english_name(code) == name


def test_a_language_that_is_not_known_asks_for_a_template() -> None:
    with pytest.raises(UsageError) as caught:
        english_name("tlh")
    assert "--template" in (caught.value.hint or "")


def test_what_is_no_code_is_refused() -> None:
    for text in ("", "k", "korean language", "../ko"):
        with pytest.raises(UsageError, match="is not the code of a language"):
            check_code(text)


@pytest.mark.parametrize(
    ("path", "languages"),
    [
        ("a/locale/ko/LC_MESSAGES/a.mo", ("ko",)),
        ("po/ko.po", ("ko", "po")),
        ("i18n/ko_KR/messages.po", ("ko_KR",)),
        ("a/locale/ko/LC_MESSAGES/git.po", ("ko",)),
        ("a/ko/readme.txt", ()),
    ],
)
def test_a_path_says_its_language(path: str, languages: tuple[str, ...]) -> None:
    assert languages_of(path) == languages


def test_regions_are_of_one_language() -> None:
    assert same_language("ko", "ko_KR")
    assert same_language("sr@latin", "sr")
    assert not same_language("ko", "kok")


def test_the_script_of_a_language_is_that_of_most_letters() -> None:
    assert scripts_of("ru", ["да", "нет", "SQL"]) == {"CYRILLIC"}
    assert scripts_of("ko_KR", ["SQL"]) == {"HANGUL"}
    assert scripts_of("ru", ["1"]) == frozenset()
