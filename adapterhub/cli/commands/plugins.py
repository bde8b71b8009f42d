"""`adapterhub plugins`."""

from __future__ import annotations

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.plugin.catalog import catalog
from adapterhub.plugin.host import Admission


@click.command(short_help="List installed plugins, broken ones included.")
@json_option
def plugins(*, as_json: bool) -> None:
    """List installed plugins: what each offers, where it comes from, and what is wrong with it.

    A plugin runs with your rights; this list does not judge it.
    """
    out = Output(as_json=as_json)
    admissions = catalog().admissions
    out.data([_plain(admission) for admission in admissions])
    out.table(
        ("", "plugin", "from", "offers"),
        [
            (
                "!" if admission.problem else "",
                admission.origin.plugin,
                f"{admission.origin.distribution} {admission.origin.version}",
                _state(admission),
            )
            for admission in admissions
        ],
    )


def _offers(admission: Admission) -> list[str]:
    return [record.name for records in admission.records.values() for record in records]


def _state(admission: Admission) -> str:
    if admission.problem:
        return f"broken: {admission.problem}"
    if admission.disabled:
        return "switched off"
    return ", ".join(_offers(admission)) or "a store"


def _plain(admission: Admission) -> dict[str, object]:
    origin = admission.origin
    return {
        "plugin": origin.plugin,
        "distribution": origin.distribution,
        "version": origin.version,
        "module": origin.module,
        "offers": _offers(admission),
        "problem": admission.problem,
        "disabled": admission.disabled,
    }
