"""`adapterhub convert`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.fetching import fetcher
from adapterhub.cli.options import allow_option, base_option, device_option, json_option
from adapterhub.cli.output import Output
from adapterhub.domain.layout import LAYOUTS, Heads, Layout, heads_in, layout_of
from adapterhub.domain.manifest import BaseRecord
from adapterhub.errors import MismatchError, NotFoundError, UsageError

if TYPE_CHECKING:
    from adapterhub.compose.canonical import Canonical
    from adapterhub.compose.convert import Change, Converted
    from adapterhub.compose.members import Member
    from adapterhub.domain.base import BaseSpec
    from adapterhub.train.flatten import Flattened

# Families in all of whose published models the queries are as wide as the hidden state.
_WIDE_QUERIES = ("phi3",)
_WORST = 8


@click.command(short_help="Carry an adapter over to another layout or form.")
@click.argument("ref")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The new adapter's folder."
)
@click.option("--layout", type=click.Choice(LAYOUTS), help="For a base with such layers.")
@click.option("--canonical", is_flag=True, help="As plain A and B of one rank, scaled by 1.")
@click.option("--rank", type=int, help="With --canonical: cut a DoRA to this rank.")
@click.option(
    "--family", type=click.Choice(_WIDE_QUERIES), help="Of the base, where it is not here."
)
@click.option("--overwrite", is_flag=True, help="Replace the adapter that is there.")
@allow_option
@base_option
@device_option
@json_option
def convert(
    *,
    ref: str,
    out: Path,
    layout: Layout | None,
    canonical: bool,
    rank: int | None,
    family: str | None,
    overwrite: bool,
    allow: tuple[str, ...],
    base_name: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Write REF to the folder OUT, as another adapter of the same effect.

    --layout fused or split rewrites it for a base that stores the same layers as one or apart, as
    Phi-3's qkv_proj and Llama's q_proj, k_proj and v_proj: exact, without the base's weights.
    --base names the base that the result is for, so that its manifest can say so.

    --canonical folds rsLoRA, alpha and patterns into the factors. A DoRA has no such form: --rank
    cuts what it does to its base to the nearest LoRA, and says what that loses.
    """
    say = Output(as_json=as_json)
    _check_choice(layout, rank, family, canonical=canonical)
    from adapterhub.runtime.resolve import resolve_subject

    allowed = frozenset(allow)
    subject = resolve_subject(ref, fetcher(say), allow=allowed)
    if not subject.single:
        raise UsageError(
            f"{ref} is a composition", hint=f"merge it first: adapterhub stack {ref} -o DIR"
        )
    [member] = subject.members
    if layout is not None:
        _relayout(
            member, out, layout, say, base_name=base_name, family=family, overwrite=overwrite,
            allow=allowed,
        )  # fmt: skip
    elif rank is None:
        from adapterhub.compose.canonical import canonicalize

        _show_canonical(canonicalize(member, out, overwrite=overwrite), say)
    else:
        _flatten(
            member, out, rank, say, base_name=base_name, device=device, overwrite=overwrite,
            allow=allowed,
        )  # fmt: skip
    say.next(f"adapterhub verify {out}")


def _check_choice(
    layout: Layout | None, rank: int | None, family: str | None, *, canonical: bool
) -> None:
    if (layout is not None) == canonical:
        raise UsageError(
            "convert to what?" if layout is None else "--layout and --canonical are two steps",
            hint="give one of --layout fused, --layout split and --canonical",
        )
    if rank is not None and not canonical:
        raise UsageError("--rank is for --canonical", hint="a layout keeps every rank it can")
    if family is not None and layout is None:
        raise UsageError("--family is for --layout", hint="leave it out")


def _relayout(
    member: Member,
    out: Path,
    layout: Layout,
    say: Output,
    *,
    base_name: str | None,
    family: str | None,
    overwrite: bool,
    allow: frozenset[str],
) -> None:
    from adapterhub.compose.convert import convert_layout

    base, heads, allowed = _meant_for(member, layout, base_name, say, allow=allow)
    made = convert_layout(
        member,
        out,
        layout=layout,
        base=base,
        heads=heads,
        wide_queries=family is not None,
        allowed=allowed,
        overwrite=overwrite,
    )
    _show_layout(made, layout, say)


def _meant_for(
    member: Member, layout: Layout, base_name: str | None, say: Output, *, allow: frozenset[str]
) -> tuple[BaseRecord, Heads | None, tuple[str, ...]]:
    """What the result says of its base, the heads as far as a base here tells them, and what had
    to be allowed."""
    from adapterhub.domain.match import record_of
    from adapterhub.models.bases import base_for, find_base

    own = member.folder.manifest.base
    if base_name is not None:
        spec = find_base(base_name)
        allowed = _check_alike(member, spec, allow=allow)
        if layout_of(spec.family) == layout:
            return record_of(spec), _heads(spec), allowed
    else:
        allowed = ()
        try:
            spec = base_for(own)
        except (NotFoundError, MismatchError):
            say.say("note: the manifest names the base by id alone; --base NAME makes it exact")
            return _by_name(own), None, ()
    say.say(
        f"note: {spec.name} stores its layers {layout_of(spec.family)}, so the manifest names the "
        "base by id alone; --base NAME, with the base that this is for, makes it exact"
    )
    return _by_name(own), _heads(spec), allowed


def _heads(base: BaseSpec) -> Heads | None:
    from adapterhub.models.base_files import FolderFiles, config_in
    from adapterhub.models.bases import base_folder

    return heads_in(config_in(FolderFiles(base_folder(base.name))))


def _by_name(own: BaseRecord) -> BaseRecord:
    """The same weights in other layers: neither the commit nor the bytes are those."""
    return BaseRecord(id=own.id, scheme=own.scheme)


def _check_alike(member: Member, spec: BaseSpec, *, allow: frozenset[str]) -> tuple[str, ...]:
    """Equal norms are as much as two layouts of one base have in common."""
    from adapterhub.domain.match import WRONG_BASE, base_text

    own = member.folder.manifest.base
    if own.fingerprint is None or own.fingerprint.sketch == spec.fingerprint.sketch:
        return ()
    if WRONG_BASE not in allow:
        raise MismatchError(
            f"{member.ref} was made for {base_text(own)}, and the norms of {spec.name} are others",
            hint=f"name a base with the same weights; or go on with --allow {WRONG_BASE}",
        )
    return (WRONG_BASE,)


def _flatten(
    member: Member,
    out: Path,
    rank: int,
    say: Output,
    *,
    base_name: str | None,
    device: str | None,
    overwrite: bool,
    allow: frozenset[str],
) -> None:
    from adapterhub.cli.workbench import check_made_for
    from adapterhub.models.bases import base_for, find_base
    from adapterhub.models.loader import load_base
    from adapterhub.models.quiet import quiet
    from adapterhub.train.flatten import flatten

    if not (member.folder.config or {}).get("use_dora"):
        raise UsageError(
            f"{member.ref} is no DoRA, so its canonical form is exact",
            hint="leave --rank out; `adapterhub stack --strategy svd --rank R` cuts a rank",
        )
    own = member.folder.manifest.base
    spec = base_for(own) if base_name is None else find_base(base_name)
    allowed = tuple(sorted(allow & {"wrong-base"}))
    check_made_for(member.ref, own, spec, say, allow=allow)
    with say.progress(unit="layers") as bar, quiet():
        line = bar.add_task("cutting", total=1, note="")
        made = flatten(
            member,
            load_base(spec, device=device),
            out,
            rank=rank,
            allowed=allowed,
            overwrite=overwrite,
            on_module=lambda done, total: bar.update(line, completed=done, total=total),
        )
    _show_flattened(made, say)


def _show_layout(made: Converted, layout: Layout, out: Output) -> None:
    out.data(
        {
            "folder": str(made.folder),
            "layout": layout,
            "rank": made.rank,
            "error": 0.0,
            "changes": [asdict(change) for change in made.changes],
            "kept": made.kept,
        }
    )
    rank = f", rank {made.rank}" if made.rank else ""
    out.line(f"{made.folder}   {layout}{rank} · exact · {made.kept} layers as they were")
    if not made.changes:
        out.say("note: it changes no layer in which the layouts differ")
    for text, changes in _alike(made.changes).items():
        out.line(f"  {len(changes)} x {text}")


def _alike(changes: tuple[Change, ...]) -> dict[str, list[Change]]:
    """Changes by what happened, without the blocks they happened in."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        before, after = (
            "+".join(name.rpartition(".")[2] for name in names)
            for names in (change.before, change.after)
        )
        rank = f", rank {change.rank}" if change.rank else ""
        found.setdefault(f"{before} -> {after}{rank}", []).append(change)
    return found


def _show_canonical(made: Canonical, out: Output) -> None:
    out.data({**asdict(made), "folder": str(made.folder), "error": 0.0})
    padded = f" · {made.padded} padded with zeros" if made.padded else ""
    out.line(f"{made.folder}   {made.modules} layers, rank {made.rank}, scaling 1 · exact{padded}")


def _show_flattened(made: Flattened, out: Output) -> None:
    out.data(
        {
            "folder": str(made.folder),
            "rank": made.rank,
            "error": made.error,
            "modules": [asdict(held) for held in made.held],
        }
    )
    out.line(
        f"{made.folder}   {len(made.held)} layers, rank {made.rank}, scaling 1 · "
        f"relative error {made.error:.2g}"
    )
    worst = sorted(made.held, key=lambda held: held.error, reverse=True)[:_WORST]
    out.table(
        ("layers furthest from the adapter", "rank", "error"),
        [(held.module, f"{held.rank}", f"{held.error:.2g}") for held in worst],
    )
