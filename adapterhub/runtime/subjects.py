"""What a person names on the command line, made ready to attach.

A subject is a folder, a ref, a written composition such as `A+0.5*B`, or a composition.toml; all
end as stored adapters with weights. Knows nothing of what will be asked of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from adapterhub.compose.members import Member, open_member
from adapterhub.compose.pin import reopen
from adapterhub.domain.composition import PinnedComposition, PinnedTerm, parse_composition
from adapterhub.domain.digest import digest_of
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.protocols import Slots
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.formats.composition_file import decode_composition
from adapterhub.hub.folder import AdapterFolder, read_folder
from adapterhub.runtime.attach import Rack, check_composable

Fetch = Callable[[str], tuple[Path, str | None]]  # ref -> (folder, commit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Something to run, evaluate, stack or push: its name as written and its members."""

    name: str
    members: tuple[Member, ...]
    strategy: str = "linear"
    rank: int | None = None

    @property
    def slots(self) -> Slots:
        return tuple(sorted((slot_of(member), member.weight) for member in self.members))

    @property
    def single(self) -> bool:
        return len(self.members) == 1 and self.members[0].weight == 1.0

    @property
    def bases(self) -> tuple[BaseRecord, ...]:
        """What each member says of the base it was made for."""
        return tuple(member.folder.manifest.base for member in self.members)


def slot_of(member: Member) -> str:
    """Equal weights under an equal config share a slot, whatever they are called.

    Under another config, such as another alpha, the same weights are another adapter.
    """
    identity = {"weights": member.sha256, "config": dict(member.folder.config or {})}
    return f"a{digest_of(identity)[:16]}"


def resolve_subject(text: str, fetch: Fetch) -> Subject:
    """Find everything that `text` names. Raises what fetching and reading raise."""
    path = Path(text).expanduser()
    if path.is_file() and path.suffix == ".toml":
        return _pinned(text, decode_composition(path.read_bytes(), name=path.name), fetch)
    if text and path.is_dir():
        return _stored(text, path, None, fetch)
    composition = parse_composition(text)
    found = [
        (_stored(term.ref, *_locate(term.ref, fetch), fetch), term.weight)
        for term in composition.terms
    ]
    if composition.single:
        return replace(found[0][0], name=text)
    members = [
        replace(member, weight=member.weight * weight)
        for subject, weight in found
        for member in subject.members
    ]
    return _checked(Subject(name=text, members=tuple(members)))


def attach_subject(rack: Rack, subject: Subject) -> Slots:
    """Attach every member and return the slots that answer as the subject.

    Raises CapabilityError for a composition whose strategy exists only as a merged adapter.
    """
    if subject.strategy != "linear" and not subject.single:
        raise CapabilityError(
            f"{subject.name} is combined by {subject.strategy}, which cannot be attached unmerged",
            hint=f"merge it first: adapterhub stack {subject.name} -o DIR",
        )
    check_composable({m.ref: m.folder.manifest.method for m in subject.members})
    for member in subject.members:
        rack.attach(slot_of(member), member.folder)
    return subject.slots


def _locate(ref: str, fetch: Fetch) -> tuple[Path, str | None]:
    path = Path(ref).expanduser()
    if path.is_dir():
        return path, None
    parse_ref(ref)  # says what is wrong with a name before anything is asked of a remote
    return fetch(ref)


def _stored(ref: str, path: Path, commit: str | None, fetch: Fetch) -> Subject:
    folder = read_folder(path)
    if folder.composition is not None:
        return _pinned(ref, folder.composition, fetch)
    return Subject(name=ref, members=(open_member(ref, folder, commit=commit),))


def _pinned(name: str, pinned: PinnedComposition, fetch: Fetch) -> Subject:
    def find(term: PinnedTerm) -> AdapterFolder:
        exact = str(parse_ref(term.ref).at(term.commit)) if term.commit else term.ref
        return read_folder(_locate(exact, fetch)[0])

    subject = Subject(
        name=name,
        members=reopen(pinned, find),
        strategy=pinned.strategy,
        rank=pinned.rank,
    )
    return _checked(subject)


def _checked(subject: Subject) -> Subject:
    """Raises UsageError when one adapter takes part twice: its slot has one weight."""
    seen: dict[str, str] = {}
    for member in subject.members:
        if member.sha256 in seen:
            raise UsageError(
                f"{seen[member.sha256]} and {member.ref} in {subject.name} are the same adapter",
                hint=f"give it one weight: 2*{member.ref}",
            )
        seen[member.sha256] = member.ref
    return subject
