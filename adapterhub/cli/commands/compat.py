"""`adapterhub compat`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.compat_screen import Answer, document, show
from adapterhub.cli.fetching import fetcher
from adapterhub.cli.options import allow_option, json_option, named_base
from adapterhub.cli.output import Output
from adapterhub.cli.workbench import check_made_for
from adapterhub.errors import AdapterhubError, MismatchError, UsageError
from adapterhub.hub.files import atomic_write

if TYPE_CHECKING:
    from adapterhub.compose.compatibility import Obstacle, Relation
    from adapterhub.compose.members import Member
    from adapterhub.compose.outline import Outline
    from adapterhub.domain.base import BaseSpec


@click.command(short_help="Say whether adapters go together, and how best.")
@click.argument("refs", nargs=-1, required=True, metavar="REF REF...")
@click.option("--base", "base_name", metavar="NAME", help="Ask too whether each is for this base.")
@click.option(
    "--picture",
    metavar="FILE.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw where they meet: layers by kinds of modules.",
)
@allow_option
@json_option
def compat(
    *,
    refs: tuple[str, ...],
    base_name: str | None,
    picture: Path | None,
    allow: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look before you merge: say whether REFs are for one base and can be attached together or
    merged, how they overlap and disagree, layer by layer, and which `adapterhub stack` suits that.

    Reads tensors and loads no model. Exits 1 where they cannot be put together.
    """
    say = Output(as_json=as_json)
    _check_picture(picture)
    base = named_base(base_name)
    answer = _answer(refs, base, say, allow=frozenset(allow))
    drawn = picture if picture is not None and _draw(answer, picture, say) else None
    say.data({**document(answer), "picture": None if drawn is None else str(drawn)})
    show(answer, say)
    if drawn is not None:
        say.line(f"picture   {drawn}")
    if answer.obstacles:
        first = answer.obstacles[0]
        raise AdapterhubError(f"not to be put together: {first.message}", hint=first.hint)
    say.next(str(answer.command))


def _answer(
    refs: Sequence[str], base: BaseSpec | None, say: Output, *, allow: frozenset[str]
) -> Answer:
    from adapterhub.compose.compatibility import advice_for, compare_bases, obstacles
    from adapterhub.compose.members import outline

    members = _members(refs, say, allow=allow)
    outlines = [outline(member) for member in members]
    found = [
        *obstacles(members, outlines, allow=allow),
        *(_wrong_base(members, base, say, allow=allow) if base else ()),
    ]
    relation = None if found else _relation(members, outlines, say, found, allow=allow)
    return Answer(
        refs=tuple(refs),
        members=tuple(members),
        outlines=tuple(outlines),
        bases=compare_bases(outlines),
        base=base,
        obstacles=tuple(found),
        relation=relation,
        advice=None if found else advice_for(outlines, relation),
    )


def _members(refs: Sequence[str], say: Output, *, allow: frozenset[str]) -> list[Member]:
    """Of all REFs, verified; a composition has several."""
    from adapterhub.domain.composition import LINEAR
    from adapterhub.runtime.resolve import resolve_subject

    fetch = fetcher(say)
    subjects = [resolve_subject(ref, fetch, allow=allow) for ref in refs]
    members = [member for subject in subjects for member in subject.members]
    if len(members) < 2:
        raise UsageError(
            f"there is nothing to put {refs[0]} together with", hint="name two adapters or more"
        )
    for subject in subjects:
        if len(subjects) > 1 and len(subject.members) > 1 and subject.strategy != LINEAR:
            raise UsageError(
                f"{subject.name} is combined by {subject.strategy} and cannot be part of a sum",
                hint=f"ask about its members alone: adapterhub compat {subject.name}",
            )
    return members


def _wrong_base(
    members: Sequence[Member], base: BaseSpec, say: Output, *, allow: frozenset[str]
) -> list[Obstacle]:
    from adapterhub.compose.compatibility import Obstacle

    found = []
    for member in members:
        try:
            check_made_for(member.ref, member.folder.manifest.base, base, say, allow=allow)
        except MismatchError as error:
            found.append(Obstacle(message=error.message, hint=error.hint))
    return found


def _relation(
    members: Sequence[Member],
    outlines: Sequence[Outline],
    say: Output,
    found: list[Obstacle],
    *,
    allow: frozenset[str],
) -> Relation | None:
    from adapterhub.compose.compatibility import nothing_left, relate

    modules = {name for outline in outlines for name in outline.sites}
    with say.progress(unit="modules") as bar:
        line = bar.add_task("comparing", total=len(modules), note="")
        relation = relate(members, outlines, allow=allow, on_step=lambda _: bar.advance(line))
    cancelled = None if relation is None else nothing_left(relation)
    if cancelled is not None:
        found.append(cancelled)
    return relation


def _check_picture(path: Path | None) -> None:
    """Before anything is read."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path} does not end in .png", hint="--picture compat.png")
    if path.exists():
        raise UsageError(f"{path} already exists", hint="name another file, or remove it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint="make it first")


def _draw(answer: Answer, path: Path, say: Output) -> bool:
    """Whether there was anything to draw."""
    from adapterhub.compose.heatmap import picture

    relation, worst = answer.relation, answer.worst
    if relation is None or worst is None:
        say.say("note: no two of them share a module, so there is nothing to draw")
        return False
    names = (relation.names[worst.one], relation.names[worst.other])
    atomic_write(path, picture(relation.modules, worst, names))
    return True
