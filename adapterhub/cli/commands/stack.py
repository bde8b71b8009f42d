"""`adapterhub stack`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.fetching import fetcher
from adapterhub.cli.options import allow_option, base_option, dry_run_option, json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.cli.stack_options import named, strategy_options, weight_list
from adapterhub.domain.composition import ALIASES
from adapterhub.domain.manifest import COMPOSITION_FILE
from adapterhub.plugin.catalog import catalog

if TYPE_CHECKING:
    from adapterhub.compose.executor import Merged
    from adapterhub.compose.members import Member
    from adapterhub.compose.plan import Arrangement, Plan
    from adapterhub.compose.report import Overlap
    from adapterhub.models.loader import Base
    from adapterhub.runtime.subjects import Subject


@click.command(short_help="Put several adapters together.")
@click.argument("refs", nargs=-1, metavar="REF...")
@click.option(
    "--from",
    "stored",
    metavar="REF",
    help="In the place of REFs: what a composition.toml says, and nothing else.",
)
@click.option(
    "--strategy",
    metavar="NAME",
    help="linear (default), svd, ties, sequential, ...: `adapterhub methods` lists them.",
)
@click.option("--weights", metavar="W,W,...", help="One for each REF; default: as written, or 1.")
@click.option("--rank", type=int, help="The rank of the result; not for linear.")
@click.option("--keep", type=float, help="Instead: the share of the squared norm to keep (0.99).")
@click.option("--density", type=float, help="The share of entries each adapter keeps (ties, ...).")
@click.option("--seed", type=int, help="Decides what chance decides (dare_linear, ...).")
@click.option(
    "-O",
    "--option",
    "pairs",
    multiple=True,
    metavar="KEY=NUMBER",
    help="Another of the strategy's numbers.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A folder for one merged adapter, or a .toml file; default: ./composition.toml.",
)
@click.option("--overwrite", is_flag=True, help="Replace what -o names.")
@click.option("--device", default="cpu", show_default=True, help="Where to merge.")
@allow_option
@base_option
@dry_run_option
@json_option
def stack(
    *,
    refs: tuple[str, ...],
    stored: str | None,
    strategy: str | None,
    weights: str | None,
    rank: int | None,
    keep: float | None,
    density: float | None,
    seed: int | None,
    pairs: tuple[str, ...],
    out: Path | None,
    allow: tuple[str, ...],
    base_name: str | None,
    overwrite: bool,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put REFs together: write a composition.toml, or with -o DIR one merged adapter.

    Each REF may carry a weight, as in user/en2ko-lora*0.8. Adapters of any method can be attached
    side by side, low-rank deltas alone be merged. With --base, each is asked first whether it does
    what it did when it was made, and a merged one gets a probe of its own. With --strategy
    sequential, each changes what those named before it made.
    """
    say = Output(as_json=as_json)
    given = strategy_options(pairs, keep=keep, density=density, seed=seed)
    refs = named(refs, stored, changes=(strategy, weights, rank, *given))
    from adapterhub.compose.members import outline
    from adapterhub.compose.plan import Plan, make_plan, settle

    allowed = frozenset(allow)
    base: Base | None = None
    subject = _subject(refs, weights, say, allow=allowed)
    members = subject.members
    # A slip in the name is found before torch is imported to look at the tensors.
    wanted = ALIASES.get(strategy or "", strategy)
    record = catalog().strategies[wanted or subject.strategy]
    same = record.name == subject.strategy
    target = out or Path(COMPOSITION_FILE)
    decide = settle if target.suffix == ".toml" else make_plan
    plan = decide(
        [outline(member) for member in members],
        strategy=record,
        rank=rank or (subject.rank if same and keep is None else None),
        options={**(subject.options if same and rank is None else {}), **given},
        allow=allowed,
    )
    if base_name is not None:
        noted = _check_base(members, base_name, say, allow=allowed)
        plan = replace(plan, allowed=tuple(sorted({*plan.allowed, *noted})))
    if dry_run:
        _rehearse(members, plan, say)
        return
    if base_name is not None:
        base, plan = _replayed(members, plan, base_name, say, allow=allowed)
    if isinstance(plan, Plan) and target.suffix != ".toml":
        _merge(members, plan, target, say, base=base, overwrite=overwrite, device=device)
    else:
        _write_file(members, plan, target, say, overwrite=overwrite)


def _subject(
    refs: Sequence[str], weights: str | None, out: Output, *, allow: frozenset[str]
) -> Subject:
    """All REFs as one; a single stored composition keeps its own strategy and rank."""
    from adapterhub.runtime.subjects import resolve_subject, together

    fetch = fetcher(out)
    subjects = [resolve_subject(ref, fetch, allow=allow) for ref in refs]
    factors = weight_list(weights, len(refs))
    scaled = [subject.times(w) for subject, w in zip(subjects, factors, strict=True)]
    return together("+".join(refs), scaled)


def _check_base(
    members: Sequence[Member], base_name: str, out: Output, *, allow: frozenset[str]
) -> set[str]:
    """What had to be allowed of a member's own base."""
    from adapterhub.cli.workbench import check_made_for
    from adapterhub.models.bases import find_base

    spec = find_base(base_name)
    return {
        code
        for member in members
        for code in check_made_for(member.ref, member.folder.manifest.base, spec, out, allow=allow)
    }


def _replayed(
    members: Sequence[Member],
    plan: Arrangement,
    base_name: str,
    out: Output,
    *,
    allow: frozenset[str],
) -> tuple[Base, Arrangement]:
    """The base, loaded, and the plan with what had to be allowed of its members on it."""
    from adapterhub.models.bases import find_base
    from adapterhub.models.loader import load_base
    from adapterhub.runtime.engine import open_engine
    from adapterhub.runtime.subjects import slot_of
    from adapterhub.trust.attached import check_members

    base = load_base(find_base(base_name))
    engine = open_engine(base)
    for member in members:
        engine.rack.attach(slot_of(member), member.folder)
    codes = check_members(engine, members, allow=allow, say=out.say)
    for member in members:
        engine.rack.detach(slot_of(member))
    return base, replace(plan, allowed=tuple(sorted({*plan.allowed, *codes})))


def _rehearse(members: Sequence[Member], plan: Arrangement, out: Output) -> None:
    from adapterhub.compose.plan import Plan
    from adapterhub.compose.report import overlap

    if not isinstance(plan, Plan):
        out.data({"strategy": plan.strategy.name, "members": _members_json(members)})
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
    out.line(f"size      {megabytes(plan.stored_bytes)}, {plan.parameters:,} parameters")


def _write_file(
    members: Sequence[Member], plan: Arrangement, target: Path, out: Output, *, overwrite: bool
) -> None:
    from adapterhub.compose.pin import pin, write_pinned
    from adapterhub.compose.plan import Plan

    path = write_pinned(target, pin(members, plan), overwrite=overwrite)
    out.data(
        {
            "file": str(path),
            "strategy": plan.strategy.name,
            "rank": plan.rank if isinstance(plan, Plan) else None,
            "members": _members_json(members),
        }
    )
    out.line(f"{path}   {plan}")
    out.next(f'adapterhub run {path} "..."')


def _merge(
    members: Sequence[Member],
    plan: Plan,
    target: Path,
    out: Output,
    *,
    base: Base | None,
    overwrite: bool,
    device: str,
) -> None:
    from adapterhub.compose.executor import merge
    from adapterhub.models.loader import check_device

    check_device(device)
    with out.progress(unit="modules") as bar:
        line = bar.add_task("stacking", total=len(plan.steps), note="")
        merged = merge(
            members,
            plan,
            target,
            overwrite=overwrite,
            device=device,
            on_step=lambda _: bar.advance(line),
        )
    if base is not None:
        from adapterhub.trust.record import record_probe

        record_probe(merged.folder, base, name=target.absolute().name, say=out.say)
    out.data(_merged_json(merged))
    out.line(
        f"{merged.folder}   {plan} · relative error {merged.relative_error:.2g} · "
        f"{merged.seconds:.2f} s"
    )
    out.next(f"adapterhub push {merged.folder} USER/{merged.folder.name}")


def _members_json(members: Sequence[Member]) -> list[dict[str, object]]:
    return [{"ref": m.ref, "weight": m.weight, "sha256": m.sha256} for m in members]


def _merged_json(merged: Merged) -> dict[str, object]:
    return {
        "folder": str(merged.folder),
        "relative_error": merged.relative_error,
        "seconds": merged.seconds,
        "rank": merged.rank,
    }
