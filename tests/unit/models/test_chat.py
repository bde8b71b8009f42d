"""Messages to tokens: one beginning, one end, whatever the tokenizer and the template do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError, UsageError
from adapterhub.models.chat import Chat
from adapterhub.testing.tiny import BOS, END, EOS, TEMPLATE, write_tokenizer

pytestmark = pytest.mark.models

QUESTION = (Message(role="user", content="How many legs has a spider?"),)
WITH_BOS = "<s>" + TEMPLATE
# As Gemma's: no system turn, and the turns strictly in turns.
STRICT = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
# As some templates do: a system turn is skipped without a word.
DROPPING = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<|{{ m['role'] }}|>\n"
    "{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# As Qwen3's: what was thought before the last answer is dropped from earlier turns.
REWRITING = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'][::-1] if messages[-1]['role'] == 'assistant' else m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chat(folder: Path, *, template: str | None = TEMPLATE, bos: bool = False) -> Chat:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(folder, template=template, bos=bos))
    return Chat(tokenizer, stop_ids=frozenset({EOS, END}))


def text_of(made: Chat, ids: Sequence[int]) -> str:
    text: str = made.tokenizer.decode(list(ids))
    return text


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("template", [TEMPLATE, WITH_BOS, None])
def test_a_sequence_begins_at_most_once(template: str | None, bos: bool, tmp_path: Path) -> None:
    ids = chat(tmp_path, template=template, bos=bos).prompt_ids(QUESTION)
    wanted = 1 if bos or template == WITH_BOS else 0
    assert ids.count(BOS) == wanted
    assert ids[:wanted] == [BOS] * wanted


def test_the_prompt_ends_where_the_assistant_begins(tmp_path: Path) -> None:
    made = chat(tmp_path)
    assert text_of(made, made.prompt_ids(QUESTION)).endswith("<|end|>\n<|assistant|>\n")


def test_without_a_template_the_contents_stand_alone(tmp_path: Path) -> None:
    made = chat(tmp_path, template=None)
    messages = (Message(role="system", content="Be brief."), *QUESTION)
    assert not made.has_template
    assert made.prompt_text(messages) == "Be brief.\n\nHow many legs has a spider?\n"


@pytest.mark.parametrize("template", [TEMPLATE, WITH_BOS, REWRITING, None])
@pytest.mark.parametrize("bos", [True, False])
def test_an_answer_ends_once(template: str | None, bos: bool, tmp_path: Path) -> None:
    made = chat(tmp_path, template=template, bos=bos)
    ids = made.answer_ids(QUESTION, "Eight.")
    assert [token for token in ids if token in made.stop_ids] == ids[-1:]
    assert BOS not in ids
    assert made.decode(ids) == "Eight."


def test_prompt_and_answer_are_the_conversation_as_the_template_writes_it(tmp_path: Path) -> None:
    made = chat(tmp_path)
    ids = [*made.prompt_ids(QUESTION), *made.answer_ids(QUESTION, "Eight.")]
    turns = [{"role": "user", "content": QUESTION[0].content}]
    turns.append({"role": "assistant", "content": "Eight."})
    whole = made.tokenizer.apply_chat_template(turns, tokenize=False)
    assert text_of(made, ids) == whole.removesuffix("\n")


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_an_answer_that_would_end_within_itself_is_refused(
    template: str | None, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="ends a turn"):
        chat(tmp_path, template=template).answer_ids(QUESTION, "Eight.<|end|> Or nine.")


def test_a_system_message_comes_first(tmp_path: Path) -> None:
    made = chat(tmp_path)
    text = made.prompt_text((Message(role="system", content="Be brief."), *QUESTION))
    assert text.startswith("<|system|>\nBe brief.<|end|>\n<|user|>\n")


def test_a_template_that_drops_a_system_message_is_found_out(tmp_path: Path) -> None:
    assert chat(tmp_path / "a", template=DROPPING).drops_system
    assert not chat(tmp_path / "b").drops_system
    assert not chat(tmp_path / "c", template=None).drops_system
    assert not chat(tmp_path / "d", template=STRICT).drops_system  # it refuses, which is loud
    assert (
        chat(tmp_path / "a", template=DROPPING)
        .dropping("tiny")
        .startswith("the chat template of tiny leaves system messages out")
    )


def test_what_a_template_refuses_is_a_fault_of_the_data(tmp_path: Path) -> None:
    made = chat(tmp_path, template=STRICT)
    with pytest.raises(DataError, match="System role not supported"):
        made.prompt_ids((Message(role="system", content="Be brief."), *QUESTION))


@pytest.mark.parametrize("text", ["안녕하세요", "a  b", " leading", "tab\tand\nline", "🕷️"])
def test_an_answer_survives_its_tokens(text: str, tmp_path: Path) -> None:
    made = chat(tmp_path)
    assert made.decode(made.answer_ids(QUESTION, text)) == text


# --- tokenizers that begin every text with a space ----------------------------------------------


def spacing_tokenizer(*merged: str) -> Any:
    """As Llama 2's: "▁" stands for a space and is put before every text that is encoded.

    `merged` are pairs of letters that become one token.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<s>", "</s>", "▁", *map(chr, range(33, 127)), "\n", *merged]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(letters)},
            merges=[(pair[0], pair[1]) for pair in merged],
            unk_token="<unk>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)


def spacing_chat(*merged: str, template: str | None = LLAMA_2) -> Chat:
    tokenizer = spacing_tokenizer(*merged)
    tokenizer.chat_template = template
    return Chat(tokenizer, stop_ids=frozenset({tokenizer.eos_token_id}))


def tokens_of(made: Chat, ids: list[int]) -> list[str]:
    names: list[str] = made.tokenizer.convert_ids_to_tokens(ids)
    return names


def test_an_answer_has_the_tokens_it_has_in_the_conversation() -> None:
    made = spacing_chat()
    answer = made.answer_ids(QUESTION, "Paris")
    assert tokens_of(made, answer) == ["▁", *"Paris", "▁", "</s>"]
    turns = [{"role": "user", "content": QUESTION[0].content}]
    turns.append({"role": "assistant", "content": "Paris"})
    whole = made.tokenizer.apply_chat_template(turns, tokenize=False)
    expected = made.tokenizer(whole, add_special_tokens=False).input_ids
    assert [*made.prompt_ids(QUESTION), *answer] == expected


def test_without_a_template_no_space_is_put_before_an_answer() -> None:
    made = spacing_chat(template=None)
    assert tokens_of(made, made.answer_ids(QUESTION, "Paris")) == [*"Paris", "</s>"]


def test_a_token_that_lies_across_the_end_of_the_prompt_leaves_the_answer_to_itself() -> None:
    made = spacing_chat("\n\n", template=None)
    ids = made.answer_ids(QUESTION, "\nParis")
    assert tokens_of(made, ids)[-7:] == ["\n", *"Paris", "</s>"]


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """As the command line hands over a byte that is no character."""
    broken = (Message(role="user", content=b"caf\xe9".decode(errors="surrogateescape")),)
    with pytest.raises(UsageError, match="not UTF-8"):
        chat(tmp_path).prompt_ids(broken)
