"""Turn messages into token ids, once and with at most one beginning-of-sequence token.

The base's own chat template is applied as text and tokenized without special tokens: templating
and tokenizing with the defaults would begin the sequence twice (llama, gemma).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError


class Chat:
    """A base's tokenizer and template. `stop_ids` end a turn when generated."""

    def __init__(self, tokenizer: Any, *, stop_ids: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        automatic = tokenizer("").input_ids
        self._bos: int | None = automatic[0] if automatic else None
        if self._bos != tokenizer.bos_token_id:
            self._bos = None

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

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
        ids = self._encode(self._answer_text(messages, answer))
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), None)
        if end is not None:
            return ids[: end + 1]
        return [*ids, self.tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _answer_text(self, messages: Sequence[Message], answer: str) -> str:
        if not self.has_template:
            return answer
        prompt = self.prompt_text(messages)
        turns = [*map(_as_dict, messages), {"role": "assistant", "content": answer}]
        whole = self._render(turns, add_generation_prompt=False)
        # Some templates rewrite earlier turns; then the answer stands for itself.
        return whole[len(prompt) :] if whole.startswith(prompt) else answer

    def _render(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise DataError(
                f"the base's chat template refuses this conversation: {error}",
                hint="most templates want an optional system message, then user and assistant "
                "in turns",
            ) from error
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _as_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
