"""`adapterhub lint`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click

from adapterhub.cli.destinations import named_facts
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.domain.destination import Destination, DestinationRules, Finding
from adapterhub.errors import VerificationError
from adapterhub.plugin.catalog import catalog, load_target

_MARKS = {"ok": "ok", "warning": "warn", "error": "ERROR"}


@click.command(short_help="Say what a server would refuse or get wrong.")
@click.argument("subject", metavar="PATH_OR_REF")
@click.option("--target", required=True, metavar="NAME", help="Such as vllm, sglang or llama.cpp.")
@click.option("--base", "base_name", metavar="NAME", help="The base here that it is meant for.")
@json_option
def lint(subject: str, target: str, base_name: str | None, *, as_json: bool) -> None:
    """Hold an adapter to the rules of a server or format: each with its reason and what to do.

    Reads headers and configs alone. Exits 12 where a rule finds an error; warnings are no error.
    """
    out = Output(as_json=as_json)
    record = catalog().destinations[target]
    facts = named_facts(subject, base_name, out)
    rules: DestinationRules = load_target(record.target)()
    findings = list(rules.check(facts))
    errors = [finding for finding in findings if finding.severity == "error"]
    out.data(
        {
            "target": record.name,
            "about": record.about,
            "ok": not errors,
            "findings": [asdict(finding) for finding in findings],
        }
    )
    _show(subject, record, findings, out)
    if errors:
        raise VerificationError(
            f"{subject} does not go to {record.name} as it is: {errors[0].reason}",
            hint=errors[0].fix,
        )


def _show(subject: str, record: Destination, findings: Sequence[Finding], out: Output) -> None:
    counts = Counter(finding.severity for finding in findings)
    said = ", ".join(
        f"{counts[kind]} {kind}{'s' * (counts[kind] != 1)}" for kind in ("error", "warning")
    )
    out.line(f"{subject} for {record.name}   {said} · rules of {record.about}")
    for finding in findings:
        out.line(f"  {_MARKS[finding.severity]:<6} {finding.rule:<13} {finding.reason}")
        if finding.fix:
            out.line(f"         {'':<13} fix: {finding.fix}")
