"""What is seen of a composition before it is written.

Shows plans and overlaps; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.scales import scales_text

if TYPE_CHECKING:
    from adapterhub.compose.members import Member
    from adapterhub.compose.plan import Arrangement, Plan
    from adapterhub.compose.report import Overlap


def rehearse(members: Sequence[Member], plan: Arrangement, out: Output) -> None:
    """What `stack` would write, and how much its members overlap."""
    from adapterhub.compose.plan import Plan
    from adapterhub.compose.report import overlap

    if not isinstance(plan, Plan):
        out.data({"strategy": plan.strategy.name, "members": members_json(members)})
        out.line(f"{len(members)} adapters, one base")
        out.line(f"plan      {plan}: what cannot be merged")
        out.next("drop --dry-run to write composition.toml")
        return
    found = overlap(members, plan)
    out.data(
        {
            "strategy": plan.strategy.name,
            "rank": plan.rank,
            "modules": len(plan.steps),
            "shared": plan.shared,
            "bytes": plan.stored_bytes,
            "members": members_json(members),
            "weights": _weights_json(plan) if any(m.scales for m in members) else None,
            "subspace_overlap": found.subspace,
            "sign_conflicts": found.sign_conflicts,
            "norms": list(found.norms),
            "svd": {"rank": found.rank, "kept": found.kept, "relative_error": found.error},
        }
    )
    _tell(members, plan, found, out)
    out.next("drop --dry-run to write composition.toml, add -o DIR to write one adapter")


def _tell(members: Sequence[Member], plan: Plan, found: Overlap, out: Output) -> None:
    out.line(f"{len(members)} adapters, one base, {found.shared} shared modules of {found.modules}")
    if found.subspace is not None and found.sign_conflicts is not None:
        ratio = " : ".join(f"{norm / max(found.norms):.1f}" for norm in found.norms)
        out.line(
            f"overlap   mean {found.subspace:.2f} of 1 · sign conflicts "
            f"{found.sign_conflicts:.0%} · norm ratio {ratio}"
        )
    out.line(
        f"plan      {plan}; svd to rank {found.rank} would keep {found.kept:.1%} "
        f"(error {found.error:.2g})"
    )
    for index, term in enumerate(plan.terms):
        if term.scales:
            out.line(f"scaled    {term.ref}: {_weighing(plan, index)}")
    out.line(f"size      {megabytes(plan.stored_bytes)}, {plan.parameters:,} parameters")


def _weighing(plan: Plan, member: int) -> str:
    """`layers.0-11 x 0.5, mlp x 0: 0.5 in 48 modules, 1 in 48`, of those where it takes part."""
    counted = Counter(p.weight for s in plan.steps for p in s.parts if p.member == member)
    places = [f"{weight:g} in {count} modules" for weight, count in counted.most_common()]
    return f"{scales_text(plan.terms[member].scales)}: {', '.join(places)}"


def _weights_json(plan: Plan) -> dict[str, dict[str, float]]:
    """Module -> ref -> what it weighs there."""
    return {
        step.module: {plan.terms[part.member].ref: part.weight for part in step.parts}
        for step in plan.steps
    }


def members_json(members: Sequence[Member]) -> list[dict[str, object]]:
    return [
        {
            "ref": m.ref,
            "weight": m.weight,
            "sha256": m.sha256,
            **({"scales": dict(m.scales)} if m.scales else {}),
        }
        for m in members
    ]
