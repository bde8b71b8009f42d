"""Golden samples: what an adapter answered when it was made, and whether it still does.

Greedy decoding alone is repeatable, and only in one precision on one kind of device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adapterhub.domain.digest import digest_of
from adapterhub.domain.engines import Engine, GenerateRequest, Slots
from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.manifest import Manifest
from adapterhub.domain.probe import Golden
from adapterhub.errors import UsageError
from adapterhub.hub.problems import Problem
from adapterhub.trust.probe import environment_of

TOKENS = 64
MOST = 32
_LONGEST = 2000  # characters of a sample: the manifest and the card carry it


def conversation_digest(messages: Sequence[Message]) -> str:
    """Of a conversation up to its answer."""
    return digest_of([[message.role, message.content] for message in messages])


def golden_items(
    items: Sequence[Item], count: int, *, trained_on: Collection[str] = ()
) -> list[Item]:
    """The first `count` items that may be shown: none whose digest is in `trained_on`.

    Raises UsageError where there are fewer.
    """
    if not 1 <= count <= MOST:
        raise UsageError(f"{count} golden samples", hint=f"ask for 1 to {MOST}")
    fit = [
        item
        for item in items
        if sum(len(message.content) for message in item.messages) <= _LONGEST
        and conversation_digest(item.messages) not in trained_on
    ]
    if len(fit) < count:
        raise UsageError(
            f"{len(fit)} of {len(items)} rows can be golden samples, not {count}: the others were "
            f"trained on, or have more than {_LONGEST:,} characters",
            hint="ask for fewer, or give other rows",
        )
    return fit[:count]


def make_golden(engine: Engine, slots: Slots, items: Sequence[Item]) -> tuple[Golden, ...]:
    """What the slots answer to each item, right or wrong."""
    asked = [item.messages for item in items]
    return tuple(
        Golden(messages=messages, answer=answer)
        for messages, answer in zip(asked, _answers(engine, slots, asked), strict=True)
    )


def repeat_golden(engine: Engine, slots: Slots, manifest: Manifest) -> tuple[list[Problem], str]:
    """A problem for answers that changed though nothing else did, and how many agree in words."""
    samples = manifest.golden
    again = _answers(engine, slots, [sample.messages for sample in samples])
    agree = sum(s.answer == answer for s, answer in zip(samples, again, strict=True))
    said = f"{agree} of {len(samples)} answers are those recorded"
    if manifest.probe is None or agree == len(samples):
        return [], said
    then, now = manifest.probe.environment, environment_of(engine.base)
    differing = [
        f"{getattr(then, name)} then, {getattr(now, name)} now"
        for name in ("scheme", "dtype", "device")
        if getattr(then, name) != getattr(now, name)
    ]
    if differing:
        return [], f"{said}; {', '.join(differing)}, which may change some"
    problem = Problem(
        "golden-mismatch",
        f"{said}, though base, precision and device are the same",
        "its weights, its template or a library changed; compare with the card's samples",
    )
    return [problem], said


def _answers(engine: Engine, slots: Slots, asked: Sequence[tuple[Message, ...]]) -> list[str]:
    requests = [
        GenerateRequest(messages=messages, slots=slots, max_new_tokens=TOKENS) for messages in asked
    ]
    return [made.text for made in engine.generate(requests)]
