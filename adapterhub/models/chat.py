"""Turn messages into token ids, once and with at most one beginning-of-sequence token.

The base's own chat template is applied as text and tokenized without special tokens: templating
and tokenizing with the defaults would begin the sequence twice (llama, gemma).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError, UsageError
from adapterhub.models.template_limits import check_source, limited

# What a template's own code can raise where it does not fit what it is given.
_FAULTS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip

_SENTINEL = "zqsystemzq"  # in no template, in one case, so that a template may trim it


class Chat:
    """A base's tokenizer and template. `stop_ids` end a turn when generated."""

    def __init__(self, tokenizer: Any, *, stop_ids: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        automatic = tokenizer("").input_ids
        self._checked: list[str] = []
        self._bos: int | None = automatic[0] if automatic else None
        if self._bos != tokenizer.bos_token_id:
            self._bos = None

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @cached_property
    def drops_system(self) -> bool:
        """Whether the template leaves a system message out without a word, as some do. One that
        refuses it says so where it is used."""
        try:
            text = self.prompt_text(
                [Message(role="system", content=_SENTINEL), Message(role="user", content="Hi")]
            )
        except DataError:
            return False
        return _SENTINEL not in text

    def dropping(self, base: str) -> str:
        """What to say of a template that drops it."""
        return f"the chat template of {base} leaves system messages out"

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The conversation as the model reads it, ready for the assistant's turn."""
        if not self.has_template:
            return "\n\n".join(message.content for message in messages) + "\n"
        return self._render([_as_dict(message) for message in messages], add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        ids: list[int] = self._encode(self.prompt_text(messages))
        if self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """The answer's tokens up to and including the one that ends the turn.

        Raises DataError for an answer that would end within itself.
        """
        inside = self.stop_ids.intersection(self._encode(answer))
        if inside:
            raise DataError(
                f"the answer {answer[:40]!r} contains {self.tokenizer.decode([min(inside)])}, "
                "which ends a turn of this base",
                hint="take it out of the data: every answer is ended once, by its template",
            )
        prompt = self.prompt_text(messages)
        ids = self._encode_after(prompt, self._answer_text(prompt, messages, answer))
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), None)
        if end is not None:
            return ids[: end + 1]
        return [*ids, self.tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _answer_text(self, prompt: str, messages: Sequence[Message], answer: str) -> str:
        if not self.has_template:
            return answer
        turns = [*map(_as_dict, messages), {"role": "assistant", "content": answer}]
        whole = self._render(turns, add_generation_prompt=False)
        # Some templates rewrite earlier turns; then the answer stands for itself.
        return whole[len(prompt) :] if whole.startswith(prompt) else answer

    def _render(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import SecurityError, TemplateError

        def render() -> str:
            text: str = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
            return text

        self._check_template()
        try:
            return limited(render)
        except SecurityError as error:
            raise DataError(
                f"the base's chat template tries to leave its sandbox: {error}",
                hint="remove this base; its template was made to run code",
            ) from error
        except TemplateError as error:
            raise DataError(
                f"the base's chat template refuses this conversation: {error}",
                hint="most templates want an optional system message, then user and assistant "
                "in turns",
            ) from error
        except _FAULTS as error:
            raise DataError(
                f"the base's chat template fails on this conversation: "
                f"{type(error).__name__}: {error}",
                hint="the template is broken, or asks for more than a role and a text",
            ) from error

    def _check_template(self) -> None:
        template = self.tokenizer.chat_template
        # Some models name several templates; transformers takes the one called default.
        sources = list(template.values()) if isinstance(template, dict) else [template]
        if sources != self._checked:
            for source in sources:
                check_source(source)
            self._checked = sources

    def _encode_after(self, prompt: str, rest: str) -> list[int]:
        """The tokens of `rest` as a model writes it after `prompt`.

        Encoded apart, many tokenizers (llama 2's) would begin it with a space that is not there.
        """
        head, whole = self._encode(prompt), self._encode(prompt + rest)
        if whole[: len(head)] == head:
            return whole[len(head) :]
        start = self._token_at(prompt + rest, len(prompt))
        return self._encode(rest) if start is None else whole[start:]

    def _token_at(self, text: str, place: int) -> int | None:
        """Which token begins at a character; None where a token lies across it, or none can say."""
        if not self.tokenizer.is_fast:
            return None
        spans = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True
        ).offset_mapping
        if any(first < place < last for first, last in spans):
            return None
        return next((i for i, (first, _) in enumerate(spans) if first >= place), None)

    def _encode(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{text[max(0, error.start - 20) : error.end]!r} is not UTF-8 text",
                hint="convert it first: iconv -t UTF-8",
            ) from error
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _as_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
