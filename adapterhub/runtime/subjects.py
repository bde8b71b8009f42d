"""What a person names on the command line, verified and made ready to attach.

A subject is a folder, a ref, a written composition such as `A+0.5*B`, or a composition.toml; all
end as stored adapters with weights. Knows nothing of what will be asked of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from adapterhub.compose.fit import unscalable
from adapterhub.compose.members import Member, open_member, open_patches, outline
from adapterhub.compose.pin import reopen
from adapterhub.compose.plan import arrange
from adapterhub.domain.composition import (
    LINEAR,
    SEQUENTIAL,
    PinnedComposition,
    PinnedTerm,
    Term,
    parse_composition,
    term_text,
)
from adapterhub.domain.engines import Slots, Weight
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.domain.scales import ModuleWeights, Scales, both, module_weights, scales_text
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
    def sequential(self) -> bool:
        """Whether each member changes what those before it made."""
        return self.strategy == SEQUENTIAL

    @property
    def single(self) -> bool:
        return len(self.members) == 1 and self.members[0].weight == 1.0 and not self.scaled

    @property
    def scaled(self) -> tuple[Member, ...]:
        """The members whose modules do not all weigh the same."""
        return tuple(member for member in self.members if member.scales)

    @property
    def title(self) -> str:
        """Its name, and what of it is scaled."""
        parts = "; ".join(f"{m.ref}: {scales_text(m.scales)}" for m in self.scaled)
        return f"{self.name} ({parts})" if parts else self.name

    @property
    def bases(self) -> tuple[BaseRecord, ...]:
        """What each member says of the base it was made for."""
        return tuple(member.folder.manifest.base for member in self.members)

    def times(self, weight: float) -> Subject:
        """Every member's weight multiplied. Raises CapabilityError for a sequence, whose effect is
        no sum that a number scales."""
        if weight != 1.0:
            self._check_sum("weight")
        members = tuple(replace(m, weight=m.weight * weight) for m in self.members)
        return replace(self, members=members)

    def scaled_by(self, scales: Scales) -> Subject:
        """Every member's scales multiplied. Raises CapabilityError as `times` does."""
        if scales:
            self._check_sum("scale")
        members = tuple(replace(m, scales=both(m.scales, scales)) for m in self.members)
        return replace(self, members=members)

    def _check_sum(self, what: str) -> None:
        if self.sequential and len(self.members) > 1:
            raise CapabilityError(
                f"{self.name} is a sequence and has no {what} of its own",
                hint="weigh its members: adapterhub stack A 0.5*B --strategy sequential",
            )


def slot_of(member: Member) -> str:
    """Equal weights under an equal config share a slot, whatever they are called.

    Under another config, such as another alpha, the same weights are another adapter.
    """
    return f"a{member.identity[:16]}"


def named_in(text: str) -> tuple[Term, ...]:
    """The adapters and compositions that `text` names, with their weights: a folder or a .toml file
    is one, whatever it is called. Raises UsageError as `parse_composition` does."""
    path = named_path(text)
    if path is not None and (path.is_dir() or _is_composition(path)):
        return (Term(ref=text),)
    return parse_composition(text).terms


def resolve_subject(
    text: str,
    fetch: Fetch,
    *,
    allow: frozenset[str] = frozenset(),
    scales: Mapping[str, Scales] = MappingProxyType({}),
) -> Subject:
    """Find and verify everything that `text` names; `scales` are by the refs in it.

    Raises VerificationError for the first problem of a member whose code is not in `allow`, and
    what fetching and reading raise.
    """
    return _Resolver(fetch, allow, scales).subject(text)


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
                    if subject.sequential
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
    """Attach every member and return the slots that answer as the subject.

    Raises CapabilityError for a composition whose strategy exists only as a merged adapter, for a
    method that does not work beside others and for a weight that means nothing to its adapter, and
    MismatchError for members of other bases, layouts or shapes.
    """
    if not subject.single:
        outlines = [outline(member) for member in subject.members]
        arrange(outlines, strategy=catalog().strategies[subject.strategy])
    for member in subject.members:
        rack.attach(slot_of(member), member.folder)
    slots = tuple(
        (slot_of(member), weights_on(rack.base, member) if member.scales else member.weight)
        for member in subject.members
    )
    for member, (slot, weight) in zip(subject.members, slots, strict=True):
        if weight != 1.0:
            _check_weight(rack, member, slot, weight)
    return slots


def weights_on(base: LoadedBase, member: Member) -> ModuleWeights:
    """What a member weighs at each of its modules, which its method may not know without a base.

    Raises CapabilityError for scales that mean nothing to its method, UsageError for those that are
    about none of its modules.
    """
    record = catalog().method_for(member.folder.manifest)
    if Capability.MODULE_WEIGHTS not in record.capabilities:
        raise unscalable(member.ref, record.name)
    with open_patches(member, base) as patches:
        modules = [module for module, _ in patches.rest()]
    return module_weights(member.ref, weight=member.weight, scales=member.scales, modules=modules)


def _check_weight(rack: Rack, member: Member, slot: str, weight: Weight) -> None:
    """Now rather than at the first request."""
    try:
        rack.check_weight(slot, weight)
    except CapabilityError as error:
        name = term_text(member.ref, member.weight, member.scales)
        raise CapabilityError(f"{name}: {error.message}", hint=error.hint) from error


def _is_composition(path: Path) -> bool:
    return path.is_file() and path.suffix == ".toml"


@dataclass(frozen=True, slots=True)
class _Resolver:
    fetch: Fetch
    allow: frozenset[str]
    scales: Mapping[str, Scales]
    verified: set[Path] = field(default_factory=set)

    def subject(self, text: str) -> Subject:
        found = [
            self._named(term.ref).times(term.weight).scaled_by(self.scales.get(term.ref, {}))
            for term in named_in(text)
        ]
        return together(text, found)

    def _named(self, ref: str) -> Subject:
        path = named_path(ref)
        if path is None or not _is_composition(path):
            return self._stored(ref, self._locate(ref))
        pinned = decode_composition(path.read_bytes(), name=path.name)
        return self._pinned(ref, pinned, at=Fetched(folder=path.parent))

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
