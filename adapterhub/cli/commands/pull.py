"""`adapterhub pull`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.options import device_option, json_option, named_base
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import VerificationError
from adapterhub.hub.client import Pulled
from adapterhub.hub.verify import Report, verify_folder

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec


@click.command(short_help="Fetch an adapter and check its bytes.")
@click.argument("ref")
@click.option("--allow", multiple=True, metavar="CODE", help="Keep it in spite of this problem.")
@click.option("--base", "base_name", metavar="NAME", help="Check its effect on this base as well.")
@device_option
@json_option
def pull(
    ref: str,
    allow: tuple[str, ...],
    base_name: str | None,
    device: str | None,
    *,
    as_json: bool,
) -> None:
    """Fetch REF, check its bytes and its files, and keep it on this machine.

    Without a remote in the name, `local` is asked first and then the hub. With --base, it must do
    to that base what it did when it was made, as far as its probe says; an answer is kept.
    """
    out = Output(as_json=as_json)
    spec = named_base(base_name)
    pulled = pull_with_bar(parse_ref(ref), out)
    report = verify_folder(pulled.folder, base=spec)
    if spec is not None and all(problem.code in allow for problem in report.problems):
        report = _with_effect(report, pulled, spec, device=device)
    out.data(_json(pulled, report))
    _show(pulled, report, out)
    refused = [problem for problem in report.problems if problem.code not in allow]
    if refused:
        raise VerificationError(
            f"{ref}: {refused[0].message}",
            hint=refused[0].hint or f"accept it with --allow {refused[0].code}",
        )
    out.next(f'adapterhub run {pulled.ref.id} "..."')


def _with_effect(report: Report, pulled: Pulled, spec: BaseSpec, *, device: str | None) -> Report:
    """The report with what the adapter does to a base."""
    if "members" in report.facts:
        effect = f"that of its members: adapterhub run {pulled.ref.id} asks each"
        return replace(report, facts={**report.facts, "effect": effect})
    from adapterhub.trust.attached import facts_of, judge_stored

    verdict = judge_stored(pulled.folder, spec, device=device)
    problem = verdict.problem(pulled.ref.id)
    found = (*report.problems, *([problem] if problem else []))
    return Report(ok=not found, problems=found, facts={**report.facts, **facts_of(verdict)})


def _json(pulled: Pulled, report: Report) -> dict[str, object]:
    return {
        "ref": str(pulled.ref),
        "remote": pulled.remote.name,
        "commit": pulled.snapshot.commit,
        "folder": str(pulled.folder),
        "downloaded_bytes": pulled.downloaded_bytes,
        "from_cache": pulled.from_cache,
        "ok": report.ok,
        "problems": [asdict(problem) for problem in report.problems],
        "facts": report.facts,
    }


def _show(pulled: Pulled, report: Report, out: Output) -> None:
    facts = report.facts
    size = sum(entry.size for entry in pulled.snapshot.files)
    rank = f" r={facts['rank']}" if facts.get("rank") else ""
    out.line(
        f"{pulled.ref.id}@{pulled.snapshot.commit[:7]}   {facts.get('method', 'unknown')}{rank} · "
        f"{megabytes(size)} · for {facts.get('base', 'an unknown base')}"
    )
    came = "already here" if pulled.from_cache else f"{megabytes(pulled.downloaded_bytes)} fetched"
    count = len(pulled.snapshot.files)
    out.line(f"  bytes    {count} files from {pulled.remote.name}, digests match · {came}")
    if report.ok and "tensors" in facts:
        scaling = f"; scaling {facts['scaling']}" if "scaling" in facts else ""
        out.line(f"  config   agrees with its {facts['tensors']} tensors{scaling}")
    if "members" in facts:
        out.line(f"  members  {facts['members']}")
    unchecked = facts["effect"] == "unchecked"
    how = f": adapterhub verify {pulled.ref.id} --base NAME" * unchecked
    out.line(f"  effect   {facts['effect']}{how}")
    if unchecked and "members" not in facts:
        out.line(f"  probe    {facts.get('probe', 'none recorded')}")
