"""What `adapterhub compat` answers, as lines for people and as a document for scripts."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.cli.output import Output
from adapterhub.domain.composition import ATTACHED
from adapterhub.domain.match import match_base
from adapterhub.domain.refs import parse_ref
from adapterhub.domain.scales import scales_text

if TYPE_CHECKING:
    from adapterhub.compose.advice import Advice
    from adapterhub.compose.compatibility import Bases, Obstacle, Relation
    from adapterhub.compose.members import Member
    from adapterhub.compose.outline import Outline
    from adapterhub.compose.pairs import PairFigures
    from adapterhub.domain.base import BaseSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """All that was found; `advice` is None where something is in the way."""

    refs: tuple[str, ...]
    members: tuple[Member, ...]
    outlines: tuple[Outline, ...]
    bases: tuple[Bases, ...]
    base: BaseSpec | None
    obstacles: tuple[Obstacle, ...]
    relation: Relation | None
    advice: Advice | None

    @property
    def worst(self) -> PairFigures | None:
        """The pair that decided; None where no two share a module."""
        from adapterhub.compose.advice import worst_pair

        return None if self.relation is None else worst_pair(self.relation.pairs)

    @property
    def command(self) -> str | None:
        """The advice as a command: one that exists attached is written down, another merged."""
        advice = self.advice
        if advice is None:
            return None
        words = ["adapterhub", "stack", *(self._word(member) for member in self.members)]
        if advice.strategy not in ATTACHED:
            words += ["--strategy", advice.strategy, "-o", "merged"]
        if advice.rank is not None:
            words += ["--rank", str(advice.rank)]
        for name, number in advice.options.items():
            words += [f"--{name}", f"{number:g}"]
        if any(weight != 1.0 for weight in advice.weights):
            # As one word, or a first weight below zero would be taken for an option.
            words.append(f"--weights={','.join(f'{weight:g}' for weight in advice.weights)}")
        for member in self.members:
            for pattern, factor in member.scales.items():
                words += ["--scale", f"{self._word(member)}:{pattern}={factor!r}"]
        return shlex.join(words)

    def _word(self, member: Member) -> str:
        """Its name as given, or one that means the same adapter outside of its composition."""
        if any(member.ref in re.split(r"[+*]", ref) for ref in self.refs):
            return member.ref
        if member.commit is not None:
            return str(parse_ref(member.ref).at(member.commit))
        return str(Path(member.folder.path))


def document(answer: Answer) -> dict[str, Any]:
    """For `--json`: every figure of every pair and module."""
    from adapterhub.compose.pairs import by_layer, pair_of

    relation, advice = answer.relation, answer.advice
    pairs = () if relation is None else relation.pairs
    return {
        "fits": not answer.obstacles,
        "mergeable": not answer.obstacles and not any(o.unmergeable for o in answer.outlines),
        "problems": [asdict(obstacle) for obstacle in answer.obstacles],
        "adapters": [_adapter(answer, index) for index in range(len(answer.members))],
        "bases": [asdict(bases) for bases in answer.bases],
        "pairs": [
            {
                **_figures(answer, pair),
                "layers": [
                    {"layer": layer, **_figures(answer, row)}
                    for layer, row in by_layer(relation.modules, pair.one, pair.other).items()
                ],
                "per_module": [
                    {"module": module.module, **_figures(answer, figures)}
                    for module in relation.modules
                    if (figures := pair_of([module], pair.one, pair.other)) is not None
                ],
            }
            for pair in pairs
            if relation is not None
        ],
        "rank": None
        if relation is None
        else {"exact": relation.rank, "keeps_99_percent": relation.kept_rank},
        "advice": None if advice is None else {**_advised(answer, advice)},
    }


def show(answer: Answer, out: Output) -> None:
    if answer.obstacles:
        out.line(f"no        {len(answer.members)} adapters cannot be put together:")
        for obstacle in answer.obstacles:
            out.line(f"  ! {obstacle.message}")
            if obstacle.hint:
                out.line(f"    {obstacle.hint}")
    else:
        how = "attached together"
        if not any(outline.unmergeable for outline in answer.outlines):
            how += ", or merged"
        out.line(f"yes       {len(answer.members)} adapters can be {how}")
    _show_adapters(answer, out)
    _show_bases(answer, out)
    if answer.relation is not None:
        _show_relation(answer, answer.relation, out)
    if answer.advice is not None:
        advice = answer.advice
        rank = f", rank {advice.rank}" if advice.rank is not None else ""
        weights = ", ".join(f"{weight:g}" for weight in advice.weights)
        out.line(f"advice    {advice.strategy}{rank}, weights {weights}")
        for reason in advice.reasons:
            out.line(f"  {reason}")


def _show_adapters(answer: Answer, out: Output) -> None:
    header = ["adapter", "method", "rank", "modules", "weight", "stacks", "merges"]
    rows = []
    for outline in answer.outlines:
        ranks = sorted({site.rank for site in outline.sites.values()})
        row = [
            outline.ref,
            outline.method,
            "-" if not ranks else f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}",
            str(len(outline.sites)),
            f"{outline.weight:g}",
            _yes(outline.stackable),
            _yes(outline.stackable and not outline.unmergeable),
        ]
        if answer.base is not None:
            row.append(match_base(outline.base, answer.base).verdict)
        rows.append(row)
    if answer.base is not None:
        header.append(f"on {answer.base.name}")
    out.table(header, rows)
    for outline in answer.outlines:
        if outline.scales:
            out.line(f"  {outline.ref} is scaled: {scales_text(outline.scales)}")
        if outline.unmergeable:
            out.line(f"  {outline.ref} is not merged: {outline.unmergeable}")


def _show_bases(answer: Answer, out: Output) -> None:
    """One line where all agree, a line for each pair where not."""
    verdicts = {(bases.verdict, bases.fits) for bases in answer.bases}
    if len(verdicts) == 1:
        verdict, fits = verdicts.pop()
        out.line(f"base      {'one base' if fits else 'not one base'} ({verdict})")
        return
    for bases in answer.bases:
        out.line(f"base      {bases.one} and {bases.other}: {bases.verdict}")


def _show_relation(answer: Answer, relation: Relation, out: Output) -> None:
    from adapterhub.compose.pairs import by_layer

    worst = answer.worst
    if worst is None:
        out.line("overlap   none: no two of them change the same module")
        return
    pairs = len(relation.pairs)
    for pair in relation.pairs if pairs <= 10 else (worst,):
        out.line(f"overlap   {_names(answer, pair)}: {_line(pair)}")
    if pairs > 10:
        out.line(f"          the worst of {pairs} pairs; --json has them all")
    out.line(
        f"rank      {relation.rank} for the exact sum; {relation.kept_rank} keeps 99% of its "
        "squared norm"
    )
    if pairs > 1:
        out.line(f"layers    of the worst pair, {_names(answer, worst)}")
    header = (
        "layer", "modules", "written", "read", "signs differ", "by weight", "cosine", "norms",
        "effective ranks",
    )  # fmt: skip
    rows = by_layer(relation.modules, worst.one, worst.other)
    out.table(header, [_row(layer, figures) for layer, figures in rows.items()])


def _line(pair: PairFigures) -> str:
    one, other = (norm / max(pair.norms) for norm in pair.norms)
    return (
        f"{pair.modules} shared modules · written {pair.written:.2f}, read {pair.read:.2f} of 1 · "
        f"signs differ {pair.conflicts:.0%}, by weight {pair.disputed:.0%} · "
        f"cosine {pair.cosine:+.2f} · norm ratio {one:.2f} : {other:.2f}"
    )


def _row(layer: int | None, figures: PairFigures) -> tuple[str, ...]:
    return (
        "-" if layer is None else str(layer),
        str(figures.modules),
        f"{figures.written:.2f}",
        f"{figures.read:.2f}",
        f"{figures.conflicts:.0%}",
        f"{figures.disputed:.0%}",
        f"{figures.cosine:+.3f}",
        " / ".join(f"{norm:.3g}" for norm in figures.norms),
        " / ".join(f"{rank:.1f}" for rank in figures.effective_ranks),
    )


def _adapter(answer: Answer, index: int) -> dict[str, Any]:
    outline, member = answer.outlines[index], answer.members[index]
    found = None if answer.base is None else match_base(outline.base, answer.base)
    return {
        "ref": outline.ref,
        "sha256": member.sha256,
        "weight": outline.weight,
        "scales": dict(outline.scales) or None,
        "method": outline.method,
        "modules": len(outline.sites),
        "rank": max((site.rank for site in outline.sites.values()), default=None),
        "stackable": outline.stackable,
        "mergeable": outline.stackable and outline.unmergeable is None,
        "not_merged": outline.unmergeable,
        "base": None if found is None else {"verdict": found.verdict, "fits": found.fits},
    }


def _figures(answer: Answer, pair: PairFigures) -> dict[str, Any]:
    names = answer.relation.names if answer.relation else ()
    return {**asdict(pair), "one": names[pair.one], "other": names[pair.other]}


def _advised(answer: Answer, advice: Advice) -> dict[str, Any]:
    return {
        "strategy": advice.strategy,
        "rank": advice.rank,
        "weights": list(advice.weights),
        "options": dict(advice.options),
        "reasons": list(advice.reasons),
        "worst": None
        if advice.worst is None
        else [answer.members[index].ref for index in advice.worst],
        "command": answer.command,
    }


def _names(answer: Answer, pair: PairFigures) -> str:
    names = answer.relation.names if answer.relation else ()
    return f"{names[pair.one]} and {names[pair.other]}"


def _yes(answer: object) -> str:
    return "yes" if answer else "no"
