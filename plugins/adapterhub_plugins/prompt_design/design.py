"""A designed prompt as a value: checked, as it is stored, and put before a conversation.

Knows messages and limits; it has never seen a token or a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adapterhub.domain.evaluation import Message
from adapterhub.errors import AdapterhubError, NoEffectError

METHOD = "prompt_design"
PLACE = "{prompt}"
FIELDS = ("system", "examples", "template")
# Escaped as JSON, a character has up to 12 bytes, and a config may have a million.
MAX_CHARACTERS = 64_000
MAX_EXAMPLES = 256
_PARTS = {"prompt", "completion"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """`examples` are (prompt, completion), the prompt as a person would type it."""

    system: str | None = None
    examples: tuple[tuple[str, str], ...] = ()
    template: str | None = None

    def before(self) -> tuple[Message, ...]:
        """The messages that stand before any conversation."""
        system = (Message(role="system", content=self.system),) if self.system else ()
        return system + tuple(
            turn
            for prompt, completion in self.examples
            for turn in (
                Message(role="user", content=self.filled(prompt)),
                Message(role="assistant", content=completion),
            )
        )

    def filled(self, prompt: str) -> str:
        """The prompt in the place that the template leaves for it."""
        return self.template.replace(PLACE, prompt) if self.template else prompt

    def put_before(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The conversation behind this design.

        Its system text comes first and one that the conversation has follows, as one message after
        an empty line: what is asked for now has the last word. The template is put round the last
        user message.
        """
        own, turns = self.before(), messages
        if self.system and turns and turns[0].role == "system":
            joined = f"{self.system}\n\n{turns[0].content}"
            own, turns = (replace(own[0], content=joined), *own[1:]), turns[1:]
        elif turns and turns[0].role == "system":
            own, turns = (turns[0], *own), turns[1:]
        last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
        if last is not None:
            asked = replace(turns[last], content=self.filled(turns[last].content))
            turns = (*turns[:last], asked, *turns[last + 1 :])
        return own + turns

    def stored(self) -> dict[str, Any]:
        """The fields of its config, without those that are empty."""
        made: dict[str, Any] = {"system": self.system} if self.system else {}
        if self.examples:
            made["examples"] = [{"prompt": p, "completion": c} for p, c in self.examples]
        if self.template:
            made["template"] = self.template
        return made


def read_design(values: Mapping[str, Any], *, error: type[AdapterhubError]) -> Design:
    """The design that `values` describe; empty fields count as absent.

    Raises `error` naming the field that breaks a rule, NoEffectError where nothing is left.
    """
    design = Design(
        system=_text(values, "system", error),
        examples=_examples(values.get("examples"), error),
        template=_template(values, error),
    )
    used = sum(map(len, (design.system or "", design.template or "")))
    used += sum(len(text) for pair in design.examples for text in pair)
    if used > MAX_CHARACTERS:
        raise error(
            f"the prompt design has {used:,} characters, the limit is {MAX_CHARACTERS:,}",
            hint="leave examples out, or shorten them",
        )
    if not design.stored():
        raise NoEffectError(
            "the prompt design is empty: it changes nothing",
            hint="give it a system text, examples or a template",
        )
    return design


def _text(values: Mapping[str, Any], key: str, error: type[AdapterhubError]) -> str | None:
    value = values.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return _checked(value, key, error)


def _template(values: Mapping[str, Any], error: type[AdapterhubError]) -> str | None:
    text = _text(values, "template", error)
    if text is not None and text.count(PLACE) != 1:
        raise error(
            f"the template has {PLACE} {text.count(PLACE)} times, not once",
            hint=f"write {PLACE} where the prompt belongs: 'Question: {PLACE}'",
        )
    return None if text == PLACE else text


def _examples(value: Any, error: type[AdapterhubError]) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) > MAX_EXAMPLES:
        raise error(
            f"examples are not a list of up to {MAX_EXAMPLES}",
            hint='each is {"prompt": "...", "completion": "..."}',
        )
    return tuple(_example(entry, number, error) for number, entry in enumerate(value, start=1))


def _example(entry: Any, number: int, error: type[AdapterhubError]) -> tuple[str, str]:
    if not isinstance(entry, Mapping) or set(entry) != _PARTS:
        raise error(
            f"example {number} does not have exactly a prompt and a completion",
            hint='each is {"prompt": "...", "completion": "..."}',
        )
    prompt, completion = entry["prompt"], entry["completion"]
    for part, text in (("prompt", prompt), ("completion", completion)):
        if not isinstance(text, str) or not text.strip():
            raise error(
                f"the {part} of example {number} is no text", hint="write it, or leave it out"
            )
    where = f"example {number}"
    return _checked(prompt, where, error), _checked(completion, where, error)


def _checked(value: Any, where: str, error: type[AdapterhubError]) -> str:
    """Text that any tokenizer takes: no half characters."""
    if not isinstance(value, str):
        raise error(f"{where} is not text", hint="write it in quotes")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise error(f"{where} holds half a character (a lone surrogate)", hint="write it as UTF-8")
    return value
