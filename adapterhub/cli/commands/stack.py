"""`adapterhub stack`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.fetching import fetcher
from adapterhub.cli.options import allow_option, base_option, dry_run_option, json_option
from adapterhub.cli.output import Output
from adapterhub.cli.scaling import asked_scales, say_unchecked, scale_option
from adapterhub.cli.stack_options import named, strategy_options, weight_list
from adapterhub.cli.stack_screen import members_json, rehearse
from adapterhub.cli.weight_search import (
    Asked,
    Searched,
    asked_for,
    check_place,
    search_options,
    search_weights,
)
from adapterhub.domain.composition import ALIASES
from adapterhub.domain.manifest import COMPOSITION_FILE
from adapterhub.plugin.catalog import catalog

if TYPE_CHECKING:
    from adapterhub.compose.executor import Merged
    from adapterhub.compose.members import Member
    from adapterhub.compose.plan import Arrangement, Plan
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
@scale_option
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
@search_options
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
    scales: tuple[str, ...],
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
    **searching: Any,
) -> None:
    """Put REFs together: write a composition.toml, or with -o DIR one merged adapter.

    Each REF may carry a weight, as in user/en2ko-lora*0.8, and --scale weighs its modules by a
    PATTERN, such as layers.0-11, mlp or self_attn.q_proj. Adapters of any method can be attached
    side by side, low-rank deltas alone be merged. With --base, each is asked first whether it does
    what it did when it was made, and a merged one gets a probe of its own. With --strategy
    sequential, each changes what those named before it made. --search-weights finds the weights
    of a linear composition by how likely it makes the answers of a task.
    """
    say = Output(as_json=as_json)
    given = strategy_options(pairs, keep=keep, density=density, seed=seed)
    asked = asked_for(searching, base_name)
    refs = named(refs, stored, changes=(strategy, weights, rank, asked, *scales, *given))
    from adapterhub.compose.members import outline
    from adapterhub.compose.plan import Plan, make_plan, settle
    from adapterhub.models.loader import check_device

    allowed = frozenset(allow)
    base: Base | None = None
    subject = _subject(refs, weights, scales, say, allow=allowed)
    # A slip in the name is found before torch is imported to look at the tensors.
    wanted = ALIASES.get(strategy or "", strategy)
    record = catalog().strategies[wanted or subject.strategy]
    if asked is not None:
        asked.check(record.name)
    same = record.name == subject.strategy
    target = out or Path(COMPOSITION_FILE)
    decide = settle if target.suffix == ".toml" else make_plan

    def planned(members: Sequence[Member]) -> Arrangement:
        return decide(
            [outline(member) for member in members],
            strategy=record,
            rank=rank or (subject.rank if same and keep is None else None),
            options={**(subject.options if same and rank is None else {}), **given},
            allow=allowed,
        )

    check_device(device)
    members, noted = subject.members, set[str]()
    plan = replace(planned(members), searched=subject.searched)
    if base_name is not None:
        noted |= _check_base(members, base_name, say, allow=allowed)
    if base_name is None or dry_run:
        say_unchecked(members, say)
    if dry_run:
        rehearse(members, plan, say)
        if asked is not None:
            say.say(asked.sentence(asked.rows()))
        return
    searched: Searched | None = None
    if base_name is not None:
        if asked is not None:
            check_place(target, overwrite=overwrite)
        base, codes, searched = _replayed(members, base_name, say, allow=allowed, asked=asked)
        noted |= codes
    if searched is not None:
        members = searched.members
        plan = replace(planned(members), searched=searched.record)
    plan = replace(plan, allowed=tuple(sorted({*plan.allowed, *noted})))
    more = searched.to_json() if searched else {}
    if isinstance(plan, Plan) and target.suffix != ".toml":
        _merge(members, plan, target, say, base=base, overwrite=overwrite, device=device, more=more)
    else:
        _write_file(members, plan, target, say, overwrite=overwrite, more=more)


def _subject(
    refs: Sequence[str],
    weights: str | None,
    scales: Sequence[str],
    out: Output,
    *,
    allow: frozenset[str],
) -> Subject:
    """All REFs as one; a single stored composition keeps its own strategy and rank."""
    from adapterhub.runtime.resolve import resolve_subject
    from adapterhub.runtime.subjects import together

    fetch, asked = fetcher(out), asked_scales(scales, refs)
    subjects = [resolve_subject(ref, fetch, allow=allow, scales=asked) for ref in refs]
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
    base_name: str,
    out: Output,
    *,
    allow: frozenset[str],
    asked: Asked | None,
) -> tuple[Base, set[str], Searched | None]:
    """The base, loaded, what had to be allowed of its members on it, and the search, if one is
    asked for."""
    from adapterhub.models.bases import find_base
    from adapterhub.models.loader import load_base
    from adapterhub.runtime.engine import open_engine
    from adapterhub.runtime.subjects import slot_of, weights_on
    from adapterhub.trust.attached import check_members

    rows = asked.rows() if asked else None
    base = load_base(find_base(base_name))
    engine = open_engine(base)
    for member in members:
        engine.rack.attach(slot_of(member), member.folder)
        if member.scales:
            weights_on(base, member)
    codes = set(check_members(engine, members, allow=allow, say=out.say))
    searched = search_weights(engine, members, asked, rows, out) if asked and rows else None
    for member in members:
        engine.rack.detach(slot_of(member))
    return base, codes, searched


def _write_file(
    members: Sequence[Member],
    plan: Arrangement,
    target: Path,
    out: Output,
    *,
    overwrite: bool,
    more: Mapping[str, object],
) -> None:
    from adapterhub.compose.pin import pin, write_pinned
    from adapterhub.compose.plan import Plan

    path = write_pinned(target, pin(members, plan), overwrite=overwrite)
    out.data(
        {
            "file": str(path),
            "strategy": plan.strategy.name,
            "rank": plan.rank if isinstance(plan, Plan) else None,
            "members": members_json(members),
            **more,
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
    more: Mapping[str, object],
) -> None:
    from adapterhub.compose.executor import merge

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
    out.data({**_merged_json(merged), **more})
    out.line(
        f"{merged.folder}   {plan} · relative error {merged.relative_error:.2g} · "
        f"{merged.seconds:.2f} s"
    )
    out.next(f"adapterhub push {merged.folder} USER/{merged.folder.name}")


def _merged_json(merged: Merged) -> dict[str, object]:
    return {
        "folder": str(merged.folder),
        "relative_error": merged.relative_error,
        "seconds": merged.seconds,
        "rank": merged.rank,
    }
