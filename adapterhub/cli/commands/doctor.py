"""`adapterhub doctor`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

from adapterhub import __version__
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.health import Check
from adapterhub.errors import AdapterhubError
from adapterhub.hub.health import remote_checks, storage_checks
from adapterhub.plugin.catalog import catalog

_MARKS = {"ok": "", "note": "·", "absent": "-", "broken": "!"}
_OURS = "adapterhub"


@click.command(short_help="Say what works on this machine.")
@click.option("--network", is_flag=True, help="Ask every remote for an answer, too.")
@json_option
def doctor(*, network: bool, as_json: bool) -> None:
    """Try what adapterhub needs on this machine: libraries, device, disk, locks, plugins.

    Marks: ! is broken, - an optional part that is not installed, · worth knowing. Exits 1 only if
    something that is needed is broken. Nothing is changed, and no remote asked without --network.
    """
    from adapterhub.models.machine import model_checks

    out = Output(as_json=as_json)
    checks = [_python(), *model_checks(), *_plugins(), *_bases(), *storage_checks(megabytes)]
    checks += remote_checks() if network else [_unasked()]
    broken = [check for check in checks if check.state == "broken"]
    out.data({"ok": not broken, "checks": [asdict(check) for check in checks]})
    out.table(
        ("", "what", "found"),
        [(_MARKS[check.state], check.name, check.found) for check in checks],
    )
    for check in checks:
        if check.hint and check.state != "broken":
            out.say(f"{check.name}: {check.hint}")
    if broken:
        names = ", ".join(check.name for check in broken)
        raise AdapterhubError(f"broken on this machine: {names}", hint=broken[0].hint)


def _python() -> Check:
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    found = f"{system}; adapterhub {__version__} in {sys.prefix}"
    return Check(name="python", state="ok", found=found)


def _plugins() -> Iterator[Check]:
    """A stranger's plugin that is broken, or whose names are taken, leaves all else working."""
    found = catalog()
    working = 0
    for admission in found.admissions:
        problem = admission.problem or "; ".join(found.refused(admission.origin))
        if not problem:
            working += not admission.disabled
            continue
        needed = admission.problem and admission.origin.distribution == _OURS
        yield Check(
            name=f"plugin {admission.origin.plugin}",
            state="broken" if needed else "note",
            found=f"broken: {problem}",
            hint=f"pip install -U {admission.origin.distribution}, or uninstall it",
        )
    yield Check(name="plugins", state="ok", found=f"{working} work")


def _bases() -> Iterator[Check]:
    from adapterhub.models.bases import broken_bases, list_bases

    for name, error in broken_bases().items():
        hint = f"adapterhub base rm {name}"
        yield Check(name=f"base {name}", state="note", found=error.message, hint=hint)
    names = ", ".join(base.name for base in list_bases())
    if names:
        yield Check(name="bases", state="ok", found=names)
    else:
        yield Check(
            name="bases", state="note", found="none", hint="adapterhub base add NAME SOURCE"
        )


def _unasked() -> Check:
    return Check(name="remotes", state="ok", found="not asked; --network does")
