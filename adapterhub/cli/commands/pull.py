"""`adapterhub pull`."""

from __future__ import annotations

from dataclasses import asdict

import click

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import VerificationError
from adapterhub.hub.client import Pulled
from adapterhub.hub.verify import Report, verify_folder


@click.command(short_help="Fetch an adapter and check its bytes.")
@click.argument("ref")
@click.option("--allow", multiple=True, metavar="CODE", help="Keep it in spite of this problem.")
@json_option
def pull(ref: str, allow: tuple[str, ...], *, as_json: bool) -> None:
    """Fetch REF, check its bytes and its files, and keep it on this machine.

    Without a remote in the name, `local` is asked first and then the hub.
    """
    out = Output(as_json=as_json)
    pulled = pull_with_bar(parse_ref(ref), out)
    report = verify_folder(pulled.folder)
    out.data(_json(pulled, report))
    _show(pulled, report, out)
    refused = [problem for problem in report.problems if problem.code not in allow]
    if refused:
        raise VerificationError(
            f"{ref}: {refused[0].message}",
            hint=refused[0].hint or f"accept it with --allow {refused[0].code}",
        )
    out.next(f'adapterhub run {pulled.ref.id} "..."')


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
    out.line(f"  effect   {facts['effect']}: adapterhub verify {pulled.ref.id} --base NAME")
