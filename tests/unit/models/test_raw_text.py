"""Raw text becomes the tokens that lm-evaluation-harness reads, at the seams above all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import DataError
from adapterhub.models.raw_text import pair_ids, prompt_ids
from adapterhub.testing.tiny import BOS, EOS, write_tokenizer

pytestmark = pytest.mark.models


def made(folder: Path, *, merges: tuple[tuple[str, str], ...] = (), bos: bool = False) -> Any:
    """A byte-level tokenizer with these pairs as tokens of their own."""
    import json

    from transformers import AutoTokenizer

    write_tokenizer(folder, bos=bos)
    path = folder / "tokenizer.json"
    facts = json.loads(path.read_text())
    vocabulary = facts["model"]["vocab"]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    facts["model"]["merges"] = [list(pair) for pair in merges]
    path.write_text(json.dumps(facts))
    return AutoTokenizer.from_pretrained(folder)


def texts(tokenizer: Any, pair: tuple[list[int], list[int]]) -> tuple[list[str], list[str]]:
    given, scored = ([tokenizer.decode([token]) for token in ids] for ids in pair)
    return given, scored


def test_what_continues_a_text_follows_its_tokens(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert texts(tokenizer, pair_ids(tokenizer, "ab", " c")) == (["a", "b"], [" ", "c"])
    assert prompt_ids(tokenizer, "ab ") == tokenizer("ab ").input_ids


@pytest.mark.parametrize("space", [" ", "\n", " \t\n"])
def test_whitespace_at_the_end_of_a_context_is_scored(space: str, tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert texts(tokenizer, pair_ids(tokenizer, f"ab{space}", "c")) == (["a", "b"], [*space, "c"])


def test_a_space_and_a_word_stay_one_token(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, merges=(("Ġ", "c"),))
    for context, continuation in (("ab ", "c"), ("ab", " c")):
        pair = pair_ids(tokenizer, context, continuation)
        assert texts(tokenizer, pair) == (["a", "b"], [" c"])


def test_a_token_across_the_seam_is_cut_as_the_harness_cuts_it(tmp_path: Path) -> None:
    """Together "abcd" is a, bc, d: whatever follows as many tokens as "ab" has is scored."""
    tokenizer = made(tmp_path, merges=(("b", "c"),))
    assert texts(tokenizer, pair_ids(tokenizer, "ab", "cd")) == (["a", "b"], ["d"])
    with pytest.raises(DataError, match="'c' has no tokens of its own behind 'ab'"):
        pair_ids(tokenizer, "ab", "c")


def test_a_tokenizers_own_beginning_is_there_once(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, bos=True)
    for context in ("ab", "<s>ab"):
        given, scored = pair_ids(tokenizer, context, "c")
        assert (given[0], given.count(BOS), tokenizer.decode(scored)) == (BOS, 1, "c")
        assert prompt_ids(tokenizer, context) == given


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("context", ["", "  "])
def test_an_empty_context_is_a_beginning(context: str, bos: bool, tmp_path: Path) -> None:
    tokenizer = made(tmp_path, bos=bos)
    given, scored = pair_ids(tokenizer, context, "ab")
    assert given == [BOS]
    assert tokenizer.decode(scored) == f"{context}ab"
    assert pair_ids(tokenizer, "", "<s>ab") == pair_ids(tokenizer, "", "ab")


def test_without_a_first_token_the_last_one_begins(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    tokenizer.bos_token = None
    assert pair_ids(tokenizer, "", "a")[0] == [EOS]
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no token to begin a text with"):
        pair_ids(tokenizer, "", "a")


def test_nothing_is_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a prompt has no tokens"):
        prompt_ids(made(tmp_path), "")
