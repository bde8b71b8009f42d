"""Which of several adapters answers a request: the one that it names, or the one whose training
prompts its own prompt resembles.

Names and cosines only; how a prompt becomes a vector is for `adapterhub.runtime.embedding`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from adapterhub.compose.members import Member
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.centroid import Centroid, nearest
from adapterhub.domain.composition import ROUTE
from adapterhub.domain.engines import Slots
from adapterhub.domain.evaluation import Message
from adapterhub.domain.match import match_base
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import MismatchError, UsageError
from adapterhub.runtime.embedding import RULE, embed
from adapterhub.runtime.reference import ReferenceEngine
from adapterhub.runtime.subjects import Subject

# A conversation, and the name of the adapter that is to answer it, where it has one.
Asked = tuple[tuple[Message, ...], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """`member` answers with `slots`. `cosines` are those of all members in their order, where the
    prompt decided."""

    member: str
    slots: Slots
    cosines: tuple[float, ...] = ()


def choose(
    engine: ReferenceEngine, subject: Subject, slots: Slots, asked: Sequence[Asked]
) -> list[Choice]:
    """Who answers each of these, by `switch` or `route`, each member with its own of `slots`.

    Raises UsageError for a name that no member has, or none where one is needed; MismatchError for
    a centroid that is of another base, layer or rule than prompts here can be.
    """
    if subject.strategy != ROUTE:
        named = [named_member(subject, name) for _, name in asked]
        return [_choice(subject, slots, subject.members.index(member)) for member in named]
    centroids = [_usable(member, engine.base) for member in subject.members]
    found = embed(engine, [messages for messages, _ in asked], layer=centroids[0].layer)
    return [_nearest(subject, slots, centroids, vector) for vector in found]


def named_member(subject: Subject, name: str | None) -> Member:
    """The member of this name: as the composition has it, or its last part alone where that is
    one member's. Raises UsageError naming all."""
    members = subject.members
    exact = [member for member in members if member.ref == name]
    found = exact or [member for member in members if name == _short(member.ref)]
    if len(found) == 1:
        return found[0]
    if name is None:
        fact = f"a request names none of the adapters of {subject.name}"
    else:
        fact = f"{name!r} is {'several' if found else 'none'} of the adapters of {subject.name}"
    raise UsageError(fact, hint=f"name one: {', '.join(member.ref for member in members)}")


def _short(ref: str) -> str:
    """`my-dates` of `team:me/my-dates@v1` and of `../my-dates`."""
    return PurePath(ref.partition("@")[0]).name


def _choice(subject: Subject, slots: Slots, place: int, cosines: tuple[float, ...] = ()) -> Choice:
    return Choice(member=subject.members[place].ref, slots=(slots[place],), cosines=cosines)


def _nearest(
    subject: Subject, slots: Slots, centroids: Sequence[Centroid], vector: Sequence[float]
) -> Choice:
    place, cosines = nearest(vector, centroids)
    if not all(map(math.isfinite, cosines)):
        raise MismatchError(
            "the base's states of a prompt are not finite, so no centroid is near it",
            hint="name who answers: --strategy switch",
        )
    return _choice(subject, slots, place, cosines)


def _usable(member: Member, base: LoadedBase) -> Centroid:
    """Its centroid, if prompts on this base can be held against it."""
    centroid = member.folder.manifest.centroid
    assert centroid is not None  # attaching has seen to it
    config = base.model.config.get_text_config()
    if not _of_base(centroid, member, base.spec):
        fact = f"was taken on another base than {base.spec.name}"
    elif centroid.rule != RULE:
        fact = "was taken by the rule of another release of adapterhub"
    elif centroid.layer > config.num_hidden_layers or centroid.dimension != config.hidden_size:
        fact = (
            f"is of {centroid.dimension} numbers after block {centroid.layer}, and "
            f"{base.spec.name} has {config.hidden_size} and {config.num_hidden_layers} blocks"
        )
    else:
        return centroid
    raise MismatchError(
        f"the centroid of {member.ref} {fact}",
        hint=f"take one on {base.spec.name}: adapterhub push DIR USER/NAME --base {base.spec.name} "
        "--centroid FILE|TASK",
    )


def _of_base(centroid: Centroid, member: Member, spec: BaseSpec) -> bool:
    """Taken on its very weights, or on those of the adapter's own base where that one fits."""
    record = member.folder.manifest.base
    own = record.fingerprint is not None and centroid.base == record.fingerprint.content
    return centroid.base == spec.fingerprint.content or (own and match_base(record, spec).fits)
