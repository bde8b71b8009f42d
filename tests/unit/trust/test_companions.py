"""A tokenizer or a template that an adapter brings is held against the base's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterhub.models.loader import Base
from adapterhub.testing.tiny import TEMPLATE, VOCABULARY, add_tiny_base, write_tokenizer
from adapterhub.trust.companions import companion_notes

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return add_tiny_base("llama", "bf16", tmp_path_factory.mktemp("home"))


def test_the_bases_own_tokenizer_and_template_are_no_news(base: Base, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert list(companion_notes(tmp_path, base)) == []


def test_a_template_of_its_own_is_said(base: Base, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE + " ")
    (found,) = companion_notes(tmp_path, base)
    assert "chat template of its own" in found


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer.json"])
def test_a_token_without_an_embedding_is_named(base: Base, file: str, tmp_path: Path) -> None:
    added = {"<|new|>": VOCABULARY, "<|end|>": VOCABULARY - 1}
    whole = {"added_tokens": [{"content": name, "id": number} for name, number in added.items()]}
    (tmp_path / file).write_text(json.dumps(added if file == "added_tokens.json" else whole))
    (found,) = companion_notes(tmp_path, base)
    assert f"first <|new|> ({VOCABULARY}, and the base has {VOCABULARY} rows)" in found


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": {"a": []}}', '{"a": "b"}'])
def test_a_tokenizer_that_is_none_is_not_the_adapters_fault(
    base: Base, text: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    assert list(companion_notes(tmp_path, base)) == []
