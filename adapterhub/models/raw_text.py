"""Turn raw text into token ids, without a template, the way lm-evaluation-harness does.

So that log-probabilities compare with its own (HFLM of 0.4.13): a tokenizer's own special tokens
are added unless the text begins with them; what continues a text is encoded together with it and is
whatever follows as many tokens as the text has alone. Knows nothing of conversations.
"""

from __future__ import annotations

from typing import Any

from adapterhub.errors import DataError


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that is to be continued. Raises DataError where there are none."""
    ids = _encode(tokenizer, text)
    if not ids:
        raise DataError("a prompt has no tokens", hint="give every row a prompt")
    return ids


def pair_ids(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of both. Whitespace at the end of the context counts as the beginning of the
    continuation; an empty context is the tokenizer's first token, or its last where it has none.

    Raises DataError where no token of the continuation is left, because it grows together with the
    end of the context.
    """
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    given = _encode(tokenizer, bare) if bare else []
    scored = _encode(tokenizer, bare + continuation)[len(given) :] if bare else []
    if not bare:
        given = [_first(tokenizer)]
        scored = tokenizer(continuation, add_special_tokens=False).input_ids
        scored = scored[1:] if scored[:1] == given else scored
    if not scored:
        raise DataError(
            f"{continuation[:40]!r} has no tokens of its own behind {bare[-40:]!r}",
            hint="begin it with a space, or join what belongs together in the prompt",
        )
    return given, scored


def _encode(tokenizer: Any, text: str) -> list[int]:
    first = tokenizer.decode([_first(tokenizer)])
    ids: list[int] = tokenizer(text, add_special_tokens=not text.startswith(first)).input_ids
    return ids


def _first(tokenizer: Any) -> int:
    """The token that stands for a beginning."""
    found: int | None = tokenizer.bos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        raise DataError(
            "this base's tokenizer has no token to begin a text with",
            hint="use a base whose tokenizer names a bos_token or an eos_token",
        )
    return found
