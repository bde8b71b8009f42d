"""Look before a merge: what keeps adapters from being put together, how they relate, what to do.

Asks the rules of `fit` one after the other instead of stopping at the first; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from adapterhub.compose.advice import KEPT, Advice, Figures, advise, balance
from adapterhub.compose.executor import NOTHING
from adapterhub.compose.fit import (
    check_base,
    check_layouts,
    check_scales,
    check_shapes,
    check_stackable,
)
from adapterhub.compose.members import Member
from adapterhub.compose.outline import Outline
from adapterhub.compose.pairs import PairFigures, gathered
from adapterhub.compose.plan import Plan, Step, make_plan
from adapterhub.compose.report import ModuleRelation, kept_share, relations, total_norms
from adapterhub.domain.composition import LINEAR
from adapterhub.domain.match import match_records
from adapterhub.errors import AdapterhubError
from adapterhub.plugin.catalog import catalog


@dataclass(frozen=True, kw_only=True, slots=True)
class Bases:
    """What two members' records of their bases say of each other, in the words of `domain.match`;
    `hint` names the command that makes them fit, where there is one."""

    one: str
    other: str
    verdict: str
    fits: bool
    reason: str
    hint: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """A reason why they cannot be put together, and the next move."""

    message: str
    hint: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """How the low-rank members relate: `pairs` and `modules` count in the order of `names`."""

    names: tuple[str, ...]
    norms: tuple[float, ...]
    pairs: tuple[PairFigures, ...]
    modules: tuple[ModuleRelation, ...]
    rank: int
    kept_rank: int


def compare_bases(outlines: Sequence[Outline]) -> tuple[Bases, ...]:
    """Every pair, in order."""
    return tuple(_bases(one, other) for one, other in combinations(outlines, 2))


def obstacles(
    members: Sequence[Member], outlines: Sequence[Outline], *, allow: Collection[str]
) -> tuple[Obstacle, ...]:
    """All that keeps the members from being attached together; `allow` may hold
    `different-base`."""
    found = [
        Obstacle(
            message=f"{one.ref} and {other.ref} are the same adapter, byte for byte",
            hint=f"give one of them the weight of both: 2*{one.ref}",
        )
        for one, other in combinations(members, 2)
        if one.identity == other.identity
    ]
    checks: list[Callable[[], object]] = [
        *(_of_one(outline) for outline in outlines),
        *(_of_two(pair, allow) for pair in combinations(outlines, 2)),
        lambda: check_layouts(outlines),
        lambda: check_shapes(outlines),
    ]
    for check in checks:
        try:
            check()
        except AdapterhubError as error:
            found.append(Obstacle(message=error.message, hint=error.hint))
    return tuple(found)


def relate(
    members: Sequence[Member],
    outlines: Sequence[Outline],
    *,
    allow: Collection[str] = (),
    on_step: Callable[[Step], None] | None = None,
) -> Relation | None:
    """Read every module of the members that are low-rank deltas alone; None where fewer than two
    are. A second time where other weights are advised, for the rank is that of their sum."""
    chosen = [pair for pair in zip(members, outlines, strict=True) if not pair[1].unmergeable]
    if len(chosen) < 2:
        return None
    own, plan = _planned(chosen, allow)
    found = tuple(relations(own, plan, on_step=on_step))
    names = tuple(member.ref for member in own)
    norms, pairs = total_norms(found, len(own)), gathered(found)
    weights, _ = balance(
        names, weights=[term.weight for term in plan.terms], norms=norms, pairs=pairs
    )
    judged = found
    if tuple(weights) != tuple(term.weight for term in plan.terms):
        advised = [
            (member, replace(outline, weight=weight))
            for (member, outline), weight in zip(chosen, weights, strict=True)
        ]
        judged = tuple(relations(own, _planned(advised, allow)[1], on_step=on_step))
    return Relation(
        names=names,
        norms=norms,
        pairs=pairs,
        modules=found,
        rank=plan.rank,
        kept_rank=next(
            (r for r in range(1, plan.rank) if kept_share(judged, r) >= KEPT), plan.rank
        ),
    )


def nothing_left(relation: Relation) -> Obstacle | None:
    """Of a sum whose members cancel, which no strategy is let to merge."""
    left = sum(sum(module.squares) for module in relation.modules)
    if left > (NOTHING**2) * sum(norm**2 for norm in relation.norms):
        return None
    return Obstacle(
        message=f"{' and '.join(relation.names)} cancel each other: nothing is left of their sum",
        hint="change the weights, or check that they are not the same adapter",
    )


def advice_for(outlines: Sequence[Outline], relation: Relation | None) -> Advice:
    """For all of the members: `relation` is that of the ones that are low-rank deltas alone."""
    beyond = tuple(outline.ref for outline in outlines if outline.unmergeable)
    names = tuple(outline.ref for outline in outlines)
    weights = tuple(outline.weight for outline in outlines)
    if beyond or relation is None:
        # What a norm is to a prompt is not known, so no weight is set against another.
        return advise(
            Figures(
                names=names, weights=weights, norms=(), pairs=(), rank=0, kept_rank=0,
                dense_rank=0, beyond=beyond,
            )
        )  # fmt: skip
    sites = [site for outline in outlines for site in outline.sites.values()]
    return advise(
        Figures(
            names=names,
            weights=weights,
            norms=relation.norms,
            pairs=relation.pairs,
            rank=relation.rank,
            kept_rank=relation.kept_rank,
            dense_rank=min(
                s.out_features * s.in_features // (s.out_features + s.in_features) for s in sites
            ),
        )
    )


def _planned(
    chosen: Sequence[tuple[Member, Outline]], allow: Collection[str]
) -> tuple[list[Member], Plan]:
    plan = make_plan(
        [outline for _, outline in chosen], strategy=catalog().strategies[LINEAR], allow=allow
    )
    return [member for member, _ in chosen], plan


def _bases(one: Outline, other: Outline) -> Bases:
    found = match_records(one.base, other.base)
    hint = found.hint.replace("ADAPTER", one.ref) + " -o DIR" if found.hint else None
    return Bases(
        one=one.ref,
        other=other.ref,
        verdict=found.verdict,
        fits=found.fits,
        reason=found.reason,
        hint=hint,
    )


def _of_one(outline: Outline) -> Callable[[], object]:
    def check() -> None:
        check_stackable([outline])
        check_scales([outline])

    return check


def _of_two(pair: tuple[Outline, Outline], allow: Collection[str]) -> Callable[[], object]:
    def check() -> None:
        try:
            check_base(pair, allow=allow)
        except AdapterhubError as error:
            raise type(error)(error.message, hint=_bases(*pair).hint or error.hint) from error

    return check
