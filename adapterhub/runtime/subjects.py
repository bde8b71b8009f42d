"""What a person names on the command line, verified and made ready to attach.

A subject is a folder, a ref, a written composition such as `A+0.5*B`, or a composition.toml; all
end as stored adapters with weights. Knows nothing of what will be asked of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapterhub.compose.fit import check_attachable
from adapterhub.compose.members import Member, open_member, outline
from adapterhub.compose.pin import reopen
from adapterhub.compose.plan import arrange
from adapterhub.domain.composition import (
    ALIASES,
    CHOOSING,
    LINEAR,
    NEVER_MERGED,
    SEQUENTIAL,
    PinnedComposition,
    PinnedTerm,
    parse_composition,
)
from adapterhub.domain.engines import Slots
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import CapabilityError, NotFoundError, UsageError
from adapterhub.formats.composition_file import decode_composition
from adapterhub.hub.client import refuse_problems
from adapterhub.hub.folder import AdapterFolder, named_path, read_folder
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A folder on this machine; `commit` and `remote` are None unless it was pulled."""

    folder: Path
    commit: str | None = None
    remote: str | None = None


Fetch = Callable[[Ref], Fetched]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Something to run, evaluate, stack or push: its name as written and its members, in order."""

    name: str
    members: tuple[Member, ...]
    strategy: str = LINEAR
    rank: int | None = None
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def slots(self) -> Slots:
        return tuple((slot_of(member), member.weight) for member in self.members)

    @property
    def sequential(self) -> bool:
        """Whether each member changes what those before it made."""
        return self.strategy == SEQUENTIAL

    @property
    def chooses(self) -> bool:
        """Whether each request is answered by one member alone."""
        return self.strategy in CHOOSING

    @property
    def alternatives(self) -> tuple[Slots, ...]:
        """The slots that answer: all members', or each one's where one answers alone."""
        return tuple((slot,) for slot in self.slots) if self.chooses else (self.slots,)

    def by(self, strategy: str) -> Subject:
        """The same members put together otherwise. Raises CapabilityError for a strategy that
        exists merged alone, NotFoundError for none."""
        record = catalog().strategies[ALIASES.get(strategy, strategy)]
        check_attachable(record.name)
        return replace(self, strategy=record.name, rank=None, options={})

    @property
    def single(self) -> bool:
        return len(self.members) == 1 and self.members[0].weight == 1.0

    @property
    def bases(self) -> tuple[BaseRecord, ...]:
        """What each member says of the base it was made for."""
        return tuple(member.folder.manifest.base for member in self.members)

    def times(self, weight: float) -> Subject:
        """Every member's weight multiplied. Raises CapabilityError for a sequence, whose effect is
        no sum that a number scales."""
        if self.sequential and len(self.members) > 1 and weight != 1.0:
            raise CapabilityError(
                f"{self.name} is a sequence and has no weight of its own",
                hint="weigh its members: adapterhub stack A 0.5*B --strategy sequential",
            )
        members = tuple(replace(m, weight=m.weight * weight) for m in self.members)
        return replace(self, members=members)


def slot_of(member: Member) -> str:
    """Equal weights under an equal config share a slot, whatever they are called.

    Under another config, such as another alpha, the same weights are another adapter.
    """
    return f"a{member.identity[:16]}"


def resolve_subject(text: str, fetch: Fetch, *, allow: frozenset[str] = frozenset()) -> Subject:
    """Find and verify everything that `text` names.

    Raises VerificationError for the first problem of a member whose code is not in `allow`, and
    what fetching and reading raise.
    """
    return _Resolver(fetch, allow).subject(text)


def together(name: str, subjects: list[Subject]) -> Subject:
    """Several subjects as one sum. Raises CapabilityError for one that is not a plain sum itself,
    UsageError for an adapter that takes part twice: its slot has one weight."""
    if len(subjects) == 1:
        only = replace(subjects[0], name=name)
    else:
        for subject in subjects:
            if subject.strategy != LINEAR and len(subject.members) > 1:
                raise CapabilityError(
                    f"{subject.name} is combined by {subject.strategy} and cannot be part of a sum",
                    hint="name its members instead"
                    if subject.strategy in NEVER_MERGED
                    else f"merge it first: adapterhub stack {subject.name} -o DIR",
                )
        only = Subject(name=name, members=tuple(m for s in subjects for m in s.members))
    seen: dict[str, str] = {}
    for member in only.members:
        if member.identity in seen:
            raise UsageError(
                f"{seen[member.identity]} and {member.ref} in {name} are the same adapter",
                hint=f"give it one weight: 2*{member.ref}",
            )
        seen[member.identity] = member.ref
    return only


def attach_subject(rack: Rack, subject: Subject) -> Slots:
    """Attach every member and return the slots that answer as the subject; where one answers
    alone, those from which a request's are chosen.

    Raises CapabilityError for a composition whose strategy exists only as a merged adapter, for a
    method that does not work beside others and for a weight that means nothing to its adapter, and
    MismatchError for members of other bases, layouts or shapes.
    """
    if not subject.single or subject.chooses:
        outlines = [outline(member) for member in subject.members]
        arrange(outlines, strategy=catalog().strategies[subject.strategy])
    for member in subject.members:
        rack.attach(slot_of(member), member.folder)
    for member in subject.members:
        if member.weight != 1.0:
            _check_weight(rack, member)
    return subject.slots


def _check_weight(rack: Rack, member: Member) -> None:
    """Now rather than at the first request."""
    try:
        rack.check_weight(slot_of(member), member.weight)
    except CapabilityError as error:
        raise CapabilityError(
            f"{member.weight:g}*{member.ref}: {error.message}", hint=error.hint
        ) from error


@dataclass(frozen=True, slots=True)
class _Resolver:
    fetch: Fetch
    allow: frozenset[str]
    verified: set[Path] = field(default_factory=set)

    def subject(self, text: str) -> Subject:
        path = Path(text).expanduser()
        if path.is_file() and path.suffix == ".toml":
            pinned = decode_composition(path.read_bytes(), name=path.name)
            return self._pinned(text, pinned, at=Fetched(folder=path.parent))
        if text and path.is_dir():
            return self._stored(text, Fetched(folder=path))
        terms = parse_composition(text).terms
        found = [self._stored(t.ref, self._locate(t.ref)).times(t.weight) for t in terms]
        return together(text, found)

    def _locate(self, ref: str, *, beside: Fetched | None = None) -> Fetched:
        """A folder, or a ref; one in a stored composition is first sought where that came from."""
        path = named_path(ref) or Path(ref)
        here = beside.folder / path if beside and not beside.commit else path
        if here.is_dir():
            return Fetched(folder=here)
        if named_path(ref):
            raise NotFoundError(f"there is no folder {ref}", hint="check the path")
        parsed = parse_ref(ref)
        if beside and beside.remote and parsed.remote is None:
            try:
                return self.fetch(parsed.on(beside.remote))
            except NotFoundError:
                pass
        return self.fetch(parsed)

    def _read(self, at: Fetched) -> AdapterFolder:
        folder = read_folder(at.folder)
        if at.folder not in self.verified:
            refuse_problems(at.folder, allow=self.allow)
            self.verified.add(at.folder)
        return folder

    def _stored(self, ref: str, at: Fetched) -> Subject:
        folder = self._read(at)
        if folder.composition is not None:
            return self._pinned(ref, folder.composition, at=at)
        member = open_member(ref, folder, commit=at.commit, remote=at.remote)
        return Subject(name=ref, members=(member,))

    def _pinned(self, name: str, pinned: PinnedComposition, *, at: Fetched) -> Subject:
        places: dict[str, Fetched] = {}

        def find(term: PinnedTerm) -> AdapterFolder:
            exact = str(parse_ref(term.ref).at(term.commit)) if term.commit else term.ref
            places[term.ref] = self._locate(exact, beside=at)
            return self._read(places[term.ref])

        members = tuple(
            replace(member, remote=places[member.ref].remote) for member in reopen(pinned, find)
        )
        subject = Subject(
            name=name,
            members=members,
            strategy=pinned.strategy,
            rank=pinned.rank,
            options=pinned.options or {},
        )
        return together(name, [subject])
