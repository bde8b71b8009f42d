"""`adapterhub plugins`."""

from __future__ import annotations

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.plugin.catalog import Catalog, catalog
from adapterhub.plugin.host import Admission


@click.command(short_help="List installed plugins, broken ones included.")
@json_option
def plugins(*, as_json: bool) -> None:
    """List installed plugins: what each offers, where it comes from, and what is wrong with it.

    A plugin runs with your rights; this list does not judge it.
    """
    out = Output(as_json=as_json)
    found = catalog()
    problems = {a.origin: _problem(a, found) for a in found.admissions}
    out.data([_plain(admission, problems[admission.origin]) for admission in found.admissions])
    out.table(
        ("", "plugin", "from", "offers"),
        [
            (
                "!" if problems[admission.origin] else "",
                admission.origin.plugin,
                f"{admission.origin.distribution} {admission.origin.version}",
                _state(admission, problems[admission.origin]),
            )
            for admission in found.admissions
        ],
    )


def _offers(admission: Admission) -> list[str]:
    return [record.name for records in admission.records.values() for record in records]


def _problem(admission: Admission, found: Catalog) -> str | None:
    """Why it is broken, or what it declares in vain."""
    return admission.problem or "; ".join(found.refused(admission.origin)) or None


def _state(admission: Admission, problem: str | None) -> str:
    if problem:
        return f"broken: {problem}"
    if admission.disabled:
        return "switched off"
    return ", ".join(_offers(admission)) or "a store"


def _plain(admission: Admission, problem: str | None) -> dict[str, object]:
    origin = admission.origin
    return {
        "plugin": origin.plugin,
        "distribution": origin.distribution,
        "version": origin.version,
        "module": origin.module,
        "offers": _offers(admission),
        "problem": problem,
        "disabled": admission.disabled,
    }
