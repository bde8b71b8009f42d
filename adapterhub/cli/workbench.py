"""A loaded base with the adapters a command named attached to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from adapterhub.cli.fetching import fetcher
from adapterhub.cli.output import Output
from adapterhub.cli.scaling import asked_scales, say_scaled
from adapterhub.domain.evaluation import Message
from adapterhub.domain.match import WRONG_BASE, another_base, match_base

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.engines import Slots
    from adapterhub.domain.manifest import BaseRecord
    from adapterhub.runtime.reference import ReferenceEngine
    from adapterhub.runtime.subjects import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Workbench:
    """`slots[i]` are those of the i-th subject that was asked for."""

    engine: ReferenceEngine
    subjects: tuple[Subject, ...]
    slots: tuple[Slots, ...]


def open_workbench(
    texts: Sequence[str],
    *,
    base_name: str | None,
    device: str | None,
    out: Output,
    allow: frozenset[str] = frozenset(),
    scales: Sequence[str] = (),
    strategy: str | None = None,
    check: Callable[[Sequence[Subject]], None] = lambda _: None,
) -> Workbench:
    """Pull and verify what is named, find its base, load it once and attach everything, put
    together by `strategy` where one is given; `scales` as `--scale` has them. `check` may refuse
    the subjects before loading."""
    from adapterhub.runtime.resolve import resolve_subject

    fetch, asked = fetcher(out), asked_scales(scales, texts)
    subjects = tuple(resolve_subject(text, fetch, allow=allow, scales=asked) for text in texts)
    if strategy is not None:
        subjects = tuple(subject.by(strategy) for subject in subjects)
    check(subjects)
    spec = choose_base(subjects, base_name, out, allow=allow)
    return _loaded(spec, subjects, device=device, out=out, allow=allow)


def choose_base(
    subjects: Sequence[Subject], base_name: str | None, out: Output, *, allow: frozenset[str]
) -> BaseSpec:
    """The named base, or the one here that the first subject was made for.

    Raises MismatchError when a member was made for another one.
    """
    from adapterhub.models.bases import base_for, find_base

    spec = base_for(subjects[0].bases[0]) if base_name is None else find_base(base_name)
    members = {member.identity: member for subject in subjects for member in subject.members}
    for member in members.values():
        check_made_for(member.ref, member.folder.manifest.base, spec, out, allow=allow)
    return spec


def check_made_for(
    name: str, record: BaseRecord, spec: BaseSpec, out: Output, *, allow: frozenset[str]
) -> tuple[str, ...]:
    """What had to be allowed. Raises MismatchError when an adapter records another base than
    `spec`; says aloud what differs without making it another base, such as the precision."""
    found = match_base(record, spec)
    if not found.fits and WRONG_BASE not in allow:
        go_on = f"; or go on with --allow {WRONG_BASE}"
        raise another_base(name, record, spec, found, beside=go_on)
    for difference in (found.reason, *found.differences):
        if difference:
            out.say(f"note: {name}: {difference}")
    return () if found.fits else (WRONG_BASE,)


def say_what_is_lost(
    bench: Workbench, conversations: Sequence[tuple[Message, ...]], out: Output
) -> None:
    """Say aloud that a system message, the person's or an adapter's own, never reaches the model
    where the base's template leaves it out."""
    base = bench.engine.base
    if not bench.engine.chat.drops_system:
        return
    for subject, own in zip(bench.subjects, bench.slots, strict=True):
        for messages, slots in product(conversations, subject.alternatives(own)):
            asked = bench.engine.rack.rewritten(messages, slots, sequential=subject.sequential)
            if any(message.role == "system" for message in asked):
                out.say(f"note: {bench.engine.chat.dropping(base.spec.name)}, as it did here")
                return


def _loaded(
    spec: BaseSpec,
    subjects: tuple[Subject, ...],
    *,
    device: str | None,
    out: Output,
    allow: frozenset[str],
) -> Workbench:
    from adapterhub.models.loader import load_base
    from adapterhub.runtime.engine import open_engine
    from adapterhub.runtime.subjects import attach_subject
    from adapterhub.trust.attached import check_members
    from adapterhub.trust.companions import template_notes

    engine = open_engine(load_base(spec, device=device))
    slots = tuple(attach_subject(engine.rack, subject) for subject in subjects)
    for subject, own in zip(subjects, slots, strict=True):
        say_scaled(subject, own, out)
    members = {member.identity: member for subject in subjects for member in subject.members}
    check_members(engine, list(members.values()), allow=allow, say=out.say)
    for member in members.values():
        for note in template_notes(member.folder.path, engine.base):
            out.say(f"note: {member.ref}: {note}")
    return Workbench(engine=engine, subjects=subjects, slots=slots)
