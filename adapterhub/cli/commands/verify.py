"""`adapterhub verify`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.options import base_option, device_option, json_option, named_base
from adapterhub.cli.output import Output, megabytes
from adapterhub.cli.workbench import open_workbench
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import VerificationError
from adapterhub.hub.claims import STALE_PROBE
from adapterhub.hub.folder import named_path
from adapterhub.hub.notes import add_notes
from adapterhub.hub.verify import Problem, Report, verify_folder

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec

_SHOWN = ("rank", "scaling", "ignored_keys", "members", "base_match", "probe", "effect", "golden")


@click.command(short_help="Check that an adapter is what it says it is.")
@click.argument("subject", metavar="PATH_OR_REF")
@base_option
@device_option
@json_option
def verify(subject: str, base_name: str | None, device: str | None, *, as_json: bool) -> None:
    """Check the bytes, the config and the tensors of an adapter; with --base, also its effect.

    Exits 0 only if no problem was found. That is no promise that an adapter is harmless.
    """
    out = Output(as_json=as_json)
    folder = _locate(subject, out)
    spec = named_base(base_name)
    report = verify_folder(folder, base=spec)
    if spec is not None and {problem.code for problem in report.problems} <= {STALE_PROBE}:
        report = _with_effect(report, folder, subject, spec, device=device)
    out.data(
        {
            "ok": report.ok,
            "problems": [asdict(problem) for problem in report.problems],
            "facts": report.facts,
        }
    )
    _show(subject, report, out)
    if not report.ok:
        count = len(report.problems)
        raise VerificationError(
            f"{subject} has {count} problem{'s' * (count != 1)}", hint=report.problems[0].hint
        )


def _locate(subject: str, out: Output) -> Path:
    path = named_path(subject)
    if path is not None:
        return path
    return pull_with_bar(parse_ref(subject), out).folder


def _with_effect(
    report: Report, folder: Path, subject: str, spec: BaseSpec, *, device: str | None
) -> Report:
    """The report with what the adapter, or each member of a composition, does to the base."""
    if "members" in report.facts:
        bench = open_workbench([subject], base_name=spec.name, device=device, out=Output())
        count = len(bench.subjects[0].members)
        effect = f"each of its {count} members changes the base as its probe says, if it has one"
        return replace(report, facts={**report.facts, "members": count, "effect": effect})
    from adapterhub.trust.attached import verify_attached

    problems, facts = verify_attached(folder, spec, device=device)
    found = (*report.problems, *problems)
    known = {**report.facts}
    add_notes(known, facts.pop("notes", ()))
    return Report(ok=not found, problems=found, facts={**known, **facts})


def _show(subject: str, report: Report, out: Output) -> None:
    facts = report.facts
    rows = [("what", f"{facts.get('method', 'unknown')} for {facts.get('base', 'unknown')}")]
    if "tensors" in facts:
        match = " · unchecked against the config" * (facts.get("tensors_match") == "unchecked")
        rows.append(("tensors", f"{facts['tensors']} · {megabytes(int(facts['bytes']))}{match}"))
    if 0 < facts.get("zero_modules", 0) < facts.get("modules", 0):
        rows.append(
            ("idle", f"{facts['zero_modules']} of {facts['modules']} modules change nothing")
        )
    for key in _SHOWN:
        if key in facts:
            rows.append((key.replace("_", " "), str(facts[key])))
    for note in (*facts.get("base_differences", ()), *facts.get("notes", ())):
        rows.append(("note", note))
    out.line(f"{subject}   {'no problem found' if report.ok else 'PROBLEMS'}")
    for name, value in rows:
        out.line(f"  {name:<10} {value}")
    for problem in report.problems:
        _show_problem(problem, out)


def _show_problem(problem: Problem, out: Output) -> None:
    out.line(f"  ! {problem.code}: {problem.message}")
    if problem.hint:
        out.line(f"    {problem.hint}")
