"""Find and verify what a person names on the command line: a folder, a ref, a written composition
such as `A+0.5*B`, or a composition.toml.

All end as a subject; what is attached of it is for `adapterhub.runtime.subjects`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from adapterhub.compose.members import open_member
from adapterhub.compose.pin import reopen
from adapterhub.domain.composition import (
    PinnedComposition,
    PinnedTerm,
    Term,
    parse_composition,
)
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.domain.scales import Scales
from adapterhub.errors import NotFoundError
from adapterhub.formats.composition_file import decode_composition
from adapterhub.hub.client import refuse_problems
from adapterhub.hub.folder import AdapterFolder, named_path, read_folder
from adapterhub.runtime.subjects import Subject, together


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A folder on this machine; `commit` and `remote` are None unless it was pulled."""

    folder: Path
    commit: str | None = None
    remote: str | None = None


Fetch = Callable[[Ref], Fetched]


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
            searched=pinned.searched or {},
        )
        return together(name, [subject])
