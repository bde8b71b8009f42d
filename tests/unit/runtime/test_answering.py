"""Promises of switch and route: who answers a request, and who is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.compose.members import open_member
from adapterhub.domain.base import Fingerprint
from adapterhub.domain.centroid import pack
from adapterhub.domain.engines import GenerateRequest, Slots
from adapterhub.domain.evaluation import Message
from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.domain.match import record_of
from adapterhub.errors import CapabilityError, MismatchError, NotFoundError, UsageError
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.answering import Asked, Choice, choose, named_member
from adapterhub.runtime.embedding import (
    LONGEST,
    MOST,
    Conversation,
    embed,
    make_centroid,
    prompt_of,
    usual_layer,
)
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.runtime.subjects import Subject, attach_subject, slot_of

pytestmark = pytest.mark.models

Store = Callable[..., Path]


def user(text: str) -> Conversation:
    return (Message(role="user", content=text),)


def numbers(n: int, seed: int) -> list[Conversation]:
    draw = random.Random(seed)
    return [user(f"{draw.randint(10, 99)} + {draw.randint(10, 99)} =") for _ in range(n)]


def letters(n: int, seed: int) -> list[Conversation]:
    draw = random.Random(seed)
    return [user(f"SPELL {''.join(draw.choices('QWXZ', k=8))}!") for _ in range(n)]


@pytest.fixture
def engine(base: Base) -> ReferenceEngine:
    return open_engine(base)


@pytest.fixture
def pair(engine: ReferenceEngine, stored: Store) -> Subject:
    """Two adapters by `route`, one of sums and one of letters."""
    prompts = {"sums": numbers(12, 1), "letters": letters(12, 1)}
    members = []
    for seed, (name, rows) in enumerate(prompts.items()):
        folder = read_folder(stored(name, seed=seed))
        manifest = Manifest(
            method="lora",
            config_version=1,
            base=record_of(engine.base.spec),
            centroid=make_centroid(engine, rows),
        )
        members.append(open_member(f"me/{name}", replace(folder, manifest=manifest)))
    return Subject(name="pair", members=tuple(members), strategy="route")


def changed(subject: Subject, **changes: Any) -> Subject:
    """With another manifest of the second member."""
    first, second = subject.members
    manifest = replace(second.folder.manifest, **changes)
    second = replace(second, folder=replace(second.folder, manifest=manifest))
    return replace(subject, members=(first, second))


def slots_of(subject: Subject) -> Slots:
    return tuple((slot_of(member), member.weight) for member in subject.members)


def asked_of(engine: ReferenceEngine, subject: Subject, asked: Sequence[Asked]) -> list[Choice]:
    return choose(engine, subject, slots_of(subject), asked)


# --- route ------------------------------------------------------------------------------------


def test_a_prompt_is_answered_by_the_one_trained_on_the_like(
    engine: ReferenceEngine, pair: Subject
) -> None:
    attach_subject(engine.rack, pair)
    asked = [*numbers(6, 2), *letters(6, 2)]
    found = asked_of(engine, pair, [(messages, None) for messages in asked])
    assert [choice.member for choice in found] == ["me/sums"] * 6 + ["me/letters"] * 6
    assert [choice.slots for choice in found] == [slots_of(pair)[:1]] * 6 + [slots_of(pair)[1:]] * 6
    assert all(max(choice.cosines) <= 1.001 for choice in found)


def test_whoever_answers_has_its_weight_and_the_others_no_part(
    engine: ReferenceEngine, pair: Subject
) -> None:
    half = pair.times(0.5)
    attach_subject(engine.rack, half)
    choice = asked_of(engine, half, [(numbers(1, 3)[0], None)])[0]
    assert choice.slots == ((slots_of(pair)[0][0], 0.5),)

    def answer(subject: Subject) -> str:
        slots = asked_of(engine, subject, [(numbers(1, 3)[0], None)])[0].slots
        request = GenerateRequest(messages=numbers(1, 3)[0], slots=slots, max_new_tokens=8)
        return engine.generate([request])[0].text

    assert answer(pair) == answer(replace(pair, members=pair.members[::-1]))


def test_adapters_that_are_attached_do_not_change_what_a_prompt_looks_like(
    engine: ReferenceEngine, pair: Subject
) -> None:
    before = embed(engine, numbers(2, 4), layer=1)
    attach_subject(engine.rack, pair)
    engine.rack.activate(slots_of(pair))
    assert embed(engine, numbers(2, 4), layer=1) == before


def test_only_the_last_question_and_the_system_message_count() -> None:
    system, answer = Message(role="system", content="S"), Message(role="assistant", content="A")
    talk = (*user("one"), answer, *user("two"))
    assert prompt_of((system, *talk)) == (system, *user("two"))
    assert prompt_of(talk) == user("two")
    assert prompt_of((*talk, answer)) == user("two")


def test_at_most_so_many_prompts_and_tokens_are_read(engine: ReferenceEngine) -> None:
    made = make_centroid(engine, numbers(3 * MOST - 1, 1))
    assert made is not None
    assert MOST / 2 <= made.prompts <= MOST
    assert made.layer == usual_layer(engine) == 1
    assert made.base == engine.base.spec.fingerprint.content
    head = "a" * LONGEST
    assert embed(engine, [user(head + "b")], layer=1) == embed(engine, [user(head)], layer=1)


def test_states_that_are_not_finite_make_no_centroid(engine: ReferenceEngine) -> None:
    engine.base.model.get_input_embeddings().weight.data[:] = float("inf")
    assert make_centroid(engine, numbers(2, 1)) is None


def test_a_member_without_a_centroid_is_refused_by_name(
    engine: ReferenceEngine, pair: Subject
) -> None:
    with pytest.raises(MismatchError, match="me/letters has no centroid") as caught:
        attach_subject(engine.rack, changed(pair, centroid=None))
    assert "--centroid FILE|TASK" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"layer": 2}, "differ in the layer that was read: 1 and 2"),
        ({"rule": "older"}, "differ in how prompts were embedded"),
    ],
)
def test_centroids_of_two_kinds_are_refused_by_name(
    engine: ReferenceEngine, pair: Subject, changes: dict[str, Any], fact: str
) -> None:
    centroid = pair.members[1].folder.manifest.centroid
    assert centroid is not None
    other = changed(pair, centroid=replace(centroid, **changes))
    with pytest.raises(MismatchError, match=f"me/sums and me/letters {fact}"):
        attach_subject(engine.rack, other)


def test_a_centroid_of_another_base_is_refused_by_name(
    engine: ReferenceEngine, pair: Subject
) -> None:
    centroid = pair.members[1].folder.manifest.centroid
    assert centroid is not None
    elsewhere = changed(pair, centroid=replace(centroid, base="0" * 64))
    with pytest.raises(MismatchError, match="the centroid of me/letters was taken on another base"):
        asked_of(engine, elsewhere, [(numbers(1, 1)[0], None)])


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"rule": "older"}, "was taken by the rule of another release"),
        ({"layer": 3}, "is of 64 numbers after block 3, and tiny-llama-bf16 has 64 and 2 blocks"),
        ({"values": pack((0.6, 0.8)), "dimension": 2}, "is of 2 numbers after block 1"),
    ],
)
def test_a_centroid_that_no_prompt_here_is_like_is_refused_by_name(
    engine: ReferenceEngine, pair: Subject, changes: dict[str, Any], fact: str
) -> None:
    first = pair.members[1]
    assert first.folder.manifest.centroid is not None
    spoilt = changed(pair, centroid=replace(first.folder.manifest.centroid, **changes))
    alone = replace(spoilt, members=spoilt.members[1:])
    with pytest.raises(MismatchError, match=f"the centroid of me/letters {fact}"):
        asked_of(engine, alone, [(letters(1, 1)[0], None)])


def test_a_prompt_of_states_that_are_not_finite_is_answered_by_nobody(
    engine: ReferenceEngine, pair: Subject
) -> None:
    engine.base.model.get_input_embeddings().weight.data[:] = float("inf")
    with pytest.raises(MismatchError, match="not finite"):
        asked_of(engine, pair, [(letters(1, 1)[0], None)])


def test_a_centroid_taken_on_a_copy_of_the_base_counts(
    engine: ReferenceEngine, pair: Subject
) -> None:
    spec = engine.base.spec
    copy = replace(spec.fingerprint, content="1" * 64)
    record = BaseRecord(id=spec.id, revision=spec.revision, fingerprint=copy)
    centroid = pair.members[1].folder.manifest.centroid
    assert centroid is not None
    taken = replace(centroid, base="1" * 64)
    assert asked_of(engine, changed(pair, centroid=taken, base=record), [(letters(1, 1)[0], None)])
    stranger = replace(record, fingerprint=Fingerprint(layout="l", sketch="s", content="1" * 64))
    with pytest.raises(MismatchError, match="another base"):
        asked_of(engine, changed(pair, centroid=taken, base=stranger), [(letters(1, 1)[0], None)])


# --- switch -----------------------------------------------------------------------------------


def test_the_one_that_is_named_answers(engine: ReferenceEngine, pair: Subject) -> None:
    switch = pair.by("switch")
    asked = [(numbers(1, 1)[0], name) for name in ("me/letters", "sums", "letters")]
    found = asked_of(engine, switch, asked)
    assert [choice.member for choice in found] == ["me/letters", "me/sums", "me/letters"]
    assert [choice.cosines for choice in found] == [()] * 3


@pytest.mark.parametrize(
    ("name", "fact"),
    [(None, "names none of the adapters of pair"), ("me/words", "'me/words' is none of")],
)
def test_a_request_without_a_known_name_is_told_the_names(
    pair: Subject, name: str | None, fact: str
) -> None:
    with pytest.raises(UsageError, match=fact) as caught:
        named_member(pair, name)
    assert caught.value.hint == "name one: me/sums, me/letters"


def test_a_last_part_that_two_share_names_neither(pair: Subject) -> None:
    first, second = pair.members
    both = replace(pair, members=(first, replace(second, ref="you/sums@v1")))
    with pytest.raises(UsageError, match="'sums' is several of the adapters"):
        named_member(both, "sums")
    assert named_member(both, "you/sums@v1").ref == "you/sums@v1"


def test_what_cannot_be_attached_is_refused(pair: Subject) -> None:
    with pytest.raises(CapabilityError, match="ties cannot be attached unmerged"):
        pair.by("ties")
    with pytest.raises(NotFoundError):
        pair.by("no-such")
