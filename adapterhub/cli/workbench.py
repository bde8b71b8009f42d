"""A loaded base with the adapters a command named attached to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterhub.cli.fetching import fetcher
from adapterhub.cli.output import Output
from adapterhub.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.manifest import BaseRecord
    from adapterhub.domain.protocols import Slots
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
) -> Workbench:
    """Pull what is named, find its base, load it once and attach everything."""
    from adapterhub.runtime.subjects import resolve_subject

    fetch = fetcher(out)
    subjects = tuple(resolve_subject(text, fetch) for text in texts)
    spec = choose_base(subjects, base_name, allow=allow)
    return _loaded(spec, subjects, device=device, out=out)


def choose_base(
    subjects: Sequence[Subject], base_name: str | None, *, allow: frozenset[str] = frozenset()
) -> BaseSpec:
    """The named base, or the one here that the subjects were made for.

    Raises UsageError when there is nothing to infer it from, MismatchError when a subject was
    made for another one.
    """
    from adapterhub.models.bases import base_for, find_base

    if base_name is None:
        if not subjects:
            raise UsageError("no base is named", hint="add --base NAME; `adapterhub base list`")
        spec = base_for(subjects[0].bases[0])
    else:
        spec = find_base(base_name)
    if "wrong-base" not in allow:
        for subject in subjects:
            for member in subject.members:
                check_made_for(member.ref, member.folder.manifest.base, spec)
    return spec


def check_made_for(name: str, record: BaseRecord, spec: BaseSpec) -> None:
    """Raises MismatchError when an adapter records another base than `spec`."""
    from adapterhub.domain.base import same_base

    if record.fingerprint is None:
        return
    if same_base(record.fingerprint, spec.fingerprint) == "other":
        raise MismatchError(
            f"{name} was made for {record.id} ({record.fingerprint.content[:12]}), "
            f"but {spec.name} is {spec.id} ({spec.fingerprint.content[:12]})",
            hint=f"add its own base: adapterhub base add NAME {record.id}",
        )


def _loaded(
    spec: BaseSpec, subjects: tuple[Subject, ...], *, device: str | None, out: Output
) -> Workbench:
    from adapterhub.models.loader import load_base
    from adapterhub.runtime.engine import open_engine
    from adapterhub.runtime.subjects import attach_subject

    engine = open_engine(load_base(spec, device=device))
    slots = tuple(attach_subject(engine.rack, subject) for subject in subjects)
    return Workbench(engine=engine, subjects=subjects, slots=slots)
