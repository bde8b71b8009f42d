"""Plan a composition from the outlines of its members: side by side, or merged module by module.

Counts and compares only; it has never seen a tensor or a file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from adapterhub.compose.fit import (
    check_attachable,
    check_base,
    check_centroids,
    check_layouts,
    check_mergeable,
    check_scales,
    check_shapes,
    check_stackable,
)
from adapterhub.compose.outline import Outline
from adapterhub.domain.composition import (
    CHOOSING,
    LINEAR,
    NEVER_MERGED,
    ROUTE,
    SEQUENTIAL,
    Term,
)
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.method import Strategy
from adapterhub.domain.options import refuse_unknown
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.formats.safetensors_writer import WIDTHS

NO_OPTIONS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A member's share at one module; `member` counts in the plan's order, and `weight` is its
    own times the factors of its scales."""

    member: int
    rank: int
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One module to combine. `rank` is what the result is expected to have."""

    module: str
    parts: tuple[Part, ...]
    out_features: int
    in_features: int
    rank: int

    @property
    def parameters(self) -> int:
        return self.rank * (self.out_features + self.in_features)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrangement:
    """Adapters of one base that answer together. `limit` is the rank asked for, None for the
    strategy's own, `options` its numbers; `allowed` is what was known to be wrong and allowed,
    `searched` how the weights were found, for the manifest of what is merged."""

    terms: tuple[Term, ...]
    base: BaseRecord
    strategy: Strategy
    limit: int | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    searched: Mapping[str, str | int | float] = field(default_factory=dict)

    def __str__(self) -> str:
        """`sequential, A then 0.5*B, attached`."""
        name = self.strategy.name
        between = " then " if name == SEQUENTIAL else " or " if name in CHOOSING else " + "
        return f"{name}, {between.join(map(str, self.terms))}, attached"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(Arrangement):
    """Everything a merge will do. `dtype` is that of the members if they share one, otherwise
    float32."""

    dtype: str
    steps: tuple[Step, ...]

    @property
    def rank(self) -> int:
        return max(step.rank for step in self.steps)

    @property
    def shared(self) -> int:
        """Modules in which every member takes part."""
        return sum(len(step.parts) == len(self.terms) for step in self.steps)

    def modules(self, member: int) -> frozenset[str]:
        """Those at which this one takes part."""
        return frozenset(
            step.module for step in self.steps if any(p.member == member for p in step.parts)
        )

    @property
    def parameters(self) -> int:
        return sum(step.parameters for step in self.steps)

    @property
    def stored_bytes(self) -> int:
        return self.parameters * WIDTHS[self.dtype]

    def __str__(self) -> str:
        """`linear, rank 16+16 = 32, exact`, of the module where most ranks meet."""
        widest = max(self.steps, key=lambda step: sum(part.rank for part in step.parts))
        ranks = "+".join(str(part.rank) for part in widest.parts)
        relation = "=" if self.strategy.exact else "->"
        result = f" {relation} {widest.rank}" if ranks != str(widest.rank) else ""
        exact = "exact" if self.strategy.exact else "approximate"
        return f"{self.strategy.name}, rank {ranks}{result}, {exact}"


def arrange(
    outlines: Sequence[Outline],
    *,
    strategy: Strategy,
    rank: int | None = None,
    options: Mapping[str, float] = NO_OPTIONS,
    allow: Collection[str] = (),
) -> Arrangement:
    """How the members answer together, attached, or one of them at a time, which need only be for
    one base. What a weight means to an adapter that is more than deltas, attaching finds out.

    Raises CapabilityError for a strategy that exists merged alone, or a method that does not work
    beside others; MismatchError and UsageError as `make_plan` does.
    """
    if not outlines:
        raise UsageError("there is nothing to stack", hint="name adapters: A+0.5*B")
    _check_rank(strategy, rank)
    refuse_unknown(strategy.name, options, strategy.options)
    check_attachable(strategy.name)
    if strategy.name in CHOOSING:
        base, allowed = check_base(outlines, allow=allow)
        if strategy.name == ROUTE:
            check_centroids(outlines)
    else:
        if len(outlines) > 1:
            check_stackable(outlines)
        base, allowed = _fitting(outlines, allow=allow)
    return Arrangement(terms=_terms(outlines), base=base, strategy=strategy, allowed=allowed)


def settle(
    outlines: Sequence[Outline],
    *,
    strategy: Strategy,
    rank: int | None = None,
    options: Mapping[str, float] = NO_OPTIONS,
    allow: Collection[str] = (),
) -> Arrangement:
    """A Plan where the members can be merged by this strategy, otherwise how they are attached."""
    beyond_deltas = any(outline.unmergeable for outline in outlines)
    attached = strategy.name in NEVER_MERGED or (strategy.name == LINEAR and beyond_deltas)
    decide = arrange if attached else make_plan
    return decide(outlines, strategy=strategy, rank=rank, options=options, allow=allow)


def make_plan(
    outlines: Sequence[Outline],
    *,
    strategy: Strategy,
    rank: int | None = None,
    options: Mapping[str, float] = NO_OPTIONS,
    allow: Collection[str] = (),
) -> Plan:
    """Decide everything about a merge that needs no tensor.

    Raises MismatchError when the members do not fit together (`allow` may hold `different-base`),
    CapabilityError for a method that does not stack, a member that is more than low-rank deltas or
    a strategy that exists attached alone, UsageError for a rank that makes no sense.
    """
    if not outlines:
        raise UsageError("there is nothing to stack", hint="name adapters: A+0.5*B")
    _check_rank(strategy, rank)
    refuse_unknown(strategy.name, options, strategy.options)
    if strategy.name in NEVER_MERGED:
        raise CapabilityError(
            f"{strategy.name} exists attached only: {NEVER_MERGED[strategy.name]}",
            hint=f"leave -o out: adapterhub stack A B --strategy {strategy.name}",
        )
    check_stackable(outlines)
    check_mergeable(outlines)
    base, allowed = _fitting(outlines, allow=allow)
    return Plan(
        terms=_terms(outlines),
        base=base,
        strategy=strategy,
        limit=rank,
        options=dict(options),
        dtype=_common_dtype(outlines),
        steps=tuple(_steps(outlines, strategy, limit=rank)),
        allowed=allowed,
    )


def _fitting(
    outlines: Sequence[Outline], *, allow: Collection[str]
) -> tuple[BaseRecord, tuple[str, ...]]:
    """Their base, and what had to be allowed."""
    base, allowed = check_base(outlines, allow=allow)
    check_layouts(outlines)
    check_shapes(outlines)
    check_scales(outlines)
    return base, allowed


def _terms(outlines: Sequence[Outline]) -> tuple[Term, ...]:
    return tuple(
        Term(ref=outline.ref, weight=outline.weight, scales=outline.scales) for outline in outlines
    )


def _check_rank(strategy: Strategy, rank: int | None) -> None:
    if rank is None:
        return
    if strategy.exact:
        raise UsageError(
            f"{strategy.name} keeps every rank and cannot be limited to one",
            hint=f"--strategy svd --rank {rank} gives the best sum of that rank",
        )
    if rank < 1:
        raise UsageError(f"rank {rank} leaves nothing", hint="give a rank of at least 1")


def _steps(outlines: Sequence[Outline], strategy: Strategy, *, limit: int | None) -> Iterator[Step]:
    """One step for each module where something takes part, in the order of their names."""
    sites, weights = [o.sites for o in outlines], [o.weights for o in outlines]
    every = strategy.exact or (strategy.full_rank and limit is None)
    for module in sorted(set().union(*sites)):
        parts = tuple(
            Part(member=index, rank=own[module].rank, weight=weights[index][module])
            for index, own in enumerate(sites)
            if module in own and weights[index][module]
        )
        if not parts:
            continue
        site = sites[parts[0].member][module]
        total = sum(part.rank for part in parts)
        wanted = limit or max(part.rank for part in parts)
        yield Step(
            module=module,
            parts=parts,
            out_features=site.out_features,
            in_features=site.in_features,
            rank=total if every else min(wanted, total, site.out_features, site.in_features),
        )


def _common_dtype(outlines: Sequence[Outline]) -> str:
    found = {site.dtype for outline in outlines for site in outline.sites.values()}
    only = found.pop() if len(found) == 1 else "float32"
    return only if only in WIDTHS else "float32"
