"""What runs on a base under a name: stored adapters with weights, ready to attach.

Knows nothing of how they were found, nor of what will be asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from adapterhub.compose.fit import check_attachable, unscalable
from adapterhub.compose.members import Member, open_patches, outline
from adapterhub.compose.plan import arrange
from adapterhub.domain.composition import (
    ALIASES,
    CHOOSING,
    LINEAR,
    NEVER_MERGED,
    SEQUENTIAL,
    term_text,
)
from adapterhub.domain.engines import Slots, Weight
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.scales import ModuleWeights, Scales, both, module_weights, scales_text
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Something to run, evaluate, stack or push: its name as written and its members, in order.
    `searched` is how their weights were found, where they were searched for."""

    name: str
    members: tuple[Member, ...]
    strategy: str = LINEAR
    rank: int | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    searched: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def sequential(self) -> bool:
        """Whether each member changes what those before it made."""
        return self.strategy == SEQUENTIAL

    @property
    def chooses(self) -> bool:
        """Whether each request is answered by one member alone."""
        return self.strategy in CHOOSING

    def alternatives(self, slots: Slots) -> tuple[Slots, ...]:
        """Of its members' slots, those that answer: all, or each where one answers alone."""
        return tuple((slot,) for slot in slots) if self.chooses else (slots,)

    def by(self, strategy: str) -> Subject:
        """The same members put together otherwise. Raises CapabilityError for a strategy that
        exists merged alone, NotFoundError for none."""
        record = catalog().strategies[ALIASES.get(strategy, strategy)]
        check_attachable(record.name)
        return replace(self, strategy=record.name, rank=None, options={})

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
            return replace(self, members=members, searched={})
        return self

    def scaled_by(self, scales: Scales) -> Subject:
        """Every member's scales multiplied. Raises CapabilityError as `times` does."""
        if scales:
            self._check_sum("scale")
            members = tuple(replace(m, scales=both(m.scales, scales)) for m in self.members)
            return replace(self, members=members, searched={})
        return self

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
