"""Which teacher a recipe names, found and verified before anything is loaded.

Knows refs, folders and what is recorded of bases; it asks the teacher nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.composition import NEVER_MERGED
from adapterhub.domain.digest import digest_of
from adapterhub.domain.lineage import TAUGHT_BY
from adapterhub.domain.match import WRONG_BASE, another_base, match_base, record_of
from adapterhub.domain.recipe import Recipe
from adapterhub.domain.refs import Ref
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.formats.recipe_file import without_places
from adapterhub.formats.schema import to_plain
from adapterhub.hub.client import pull
from adapterhub.models.bases import find_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.resolve import Fetched, resolve_subject
from adapterhub.runtime.subjects import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedTeacher:
    """Adapters on the base `spec`, or that base alone; `shared` if it is the student's own. What is
    wrong with the adapters and in `allow` does not keep them from teaching."""

    subject: Subject | None
    spec: BaseSpec
    shared: bool
    allow: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        if self.subject is None:
            return self.spec.name
        return self.subject.name if self.shared else f"{self.subject.name} on {self.spec.name}"

    @property
    def digest(self) -> str:
        """Equal for equal weights under equal configs, whatever they are called."""
        members = self.subject.members if self.subject is not None else ()
        adapters = sorted(
            [member.identity, member.weight, *([dict(member.scales)] if member.scales else [])]
            for member in members
        )
        strategy = self.subject.strategy if self.subject is not None else ""
        return digest_of([self.spec.fingerprint.content, str(self.spec.scheme), strategy, adapters])

    @property
    def allowed(self) -> frozenset[str]:
        """What had to be allowed so far: now, or when its adapters themselves were made."""
        members = self.subject.members if self.subject is not None else ()
        records = [member.folder.manifest for member in members]
        wrong = any(not match_base(record.base, self.spec).fits for record in records)
        before = (code for record in records for code in record.allowed)
        return frozenset([*before, *[WRONG_BASE] * wrong])

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change for a run to be the same, as plain values."""
        return {"digest": self.digest, "base": to_plain(record_of(self.spec))}

    @property
    def record(self) -> dict[str, Any]:
        """Who taught, for everybody to read and to check: names without places, and digests."""
        members = self.subject.members if self.subject is not None else ()
        made: dict[str, Any] = {
            "base": to_plain(record_of(self.spec)),
            "adapters": [
                {
                    "ref": without_places(member.ref),
                    "weight": member.weight,
                    **({"scales": dict(member.scales)} if member.scales else {}),
                    "sha256": member.sha256,
                    "config_sha256": member.config_sha256,
                }
                for member in members
            ],
        }
        if self.subject is not None and len(members) > 1:
            made["strategy"] = self.subject.strategy
        return made


def named_teacher(
    recipe: Recipe, student: BaseSpec, *, allow: frozenset[str] = frozenset()
) -> NamedTeacher | None:
    """The recipe's adapters on its other base, or on the student's; None for a trainer without.

    Raises UsageError when teacher and student are one, CapabilityError for adapters of which a
    request chooses one, MismatchError for one made for another base than the teacher's, and what
    finding, pulling and verifying raise, in so far as it is not in `allow`.
    """
    if not catalog().trainers[recipe.trainer].teacher:
        return None
    subject = resolve_subject(recipe.teacher, _fetch, allow=allow) if recipe.teacher else None
    named = recipe.teacher_base
    shared = named is None or named == student.name
    spec = student if shared or named is None else find_base(named)
    if subject is not None:
        _check_one_voice(subject)
        _check_made_for(subject, spec, allow=allow)
    elif shared:
        raise UsageError(
            f"teacher and student are the same, the bare base {spec.name}",
            hint="name adapters to learn from (--teacher REF) or another --teacher-base",
        )
    return NamedTeacher(subject=subject, spec=spec, shared=shared, allow=allow)


def taught_by(teacher: NamedTeacher | None) -> Mapping[str, Any]:
    """What the manifest's recipe says of a run's teacher: nothing where there was none."""
    return {} if teacher is None else {TAUGHT_BY: teacher.record}


def _check_one_voice(subject: Subject) -> None:
    if subject.chooses:
        raise CapabilityError(
            f"{subject.name} does not teach by {subject.strategy}: "
            f"{NEVER_MERGED[subject.strategy]}",
            hint="name one of its adapters as the teacher, or a sum of them: --teacher A+B",
        )


def _check_made_for(subject: Subject, spec: BaseSpec, *, allow: frozenset[str]) -> None:
    for member in subject.members:
        record = member.folder.manifest.base
        found = match_base(record, spec)
        if not found.fits and WRONG_BASE not in allow:
            raise another_base(
                f"the teacher {member.ref}",
                record,
                spec,
                found,
                hint="name its own base: --teacher-base NAME (see `adapterhub base list`)",
                beside=f"; or go on with --allow {WRONG_BASE}",
            )


def _fetch(ref: Ref) -> Fetched:
    pulled = pull(ref)
    return Fetched(folder=pulled.folder, commit=pulled.snapshot.commit, remote=pulled.remote.name)
