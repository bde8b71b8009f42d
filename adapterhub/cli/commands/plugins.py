"""`adapterhub plugins`, `plugins new` and `plugins check`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from adapterhub.cli.conformance_run import Finding, Subject, outcome_of, run_checks, subjects_of
from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.domain.grounds import TINY_FAMILIES
from adapterhub.domain.quantization import SCHEMES
from adapterhub.errors import NotFoundError, PluginError, UsageError
from adapterhub.plugin.catalog import Catalog, Shelf, catalog
from adapterhub.plugin.host import Admission
from adapterhub.plugin.scaffold import KINDS, Kind


@click.group(
    invoke_without_command=True, short_help="List installed plugins; write one, or check one."
)
@json_option
@click.pass_context
def plugins(ctx: click.Context, *, as_json: bool) -> None:
    """List installed plugins: what each offers, where it comes from, and what is wrong with it.

    A plugin runs with your rights; this list does not judge it.
    """
    if ctx.invoked_subcommand is not None:
        return
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


@plugins.command(short_help="Write the package of a new plugin, one that works.")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(KINDS), default="method", show_default=True, help="What it adds."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write it; default: adapterhub-NAME here.",
)
@json_option
def new(name: str, kind: Kind, out: Path | None, *, as_json: bool) -> None:
    """Write the package of a plugin called NAME. It works as it is; change it into your own.

    It installs with pip and keeps its promises at once: `adapterhub plugins check NAME`.
    """
    from adapterhub.hub.staging import check_free, staged_folder
    from adapterhub.plugin.scaffold import check_name, write_plugin

    voice = Output(as_json=as_json)
    check_name(name)
    _check_unclaimed(name, kind)
    folder = out or Path(f"adapterhub-{name.replace('_', '-')}")
    check_free(folder)
    with staged_folder(folder) as stage:
        files = write_plugin(stage, name, kind)
    voice.data({"folder": str(folder), "files": [str(file) for file in files]})
    for file in files:
        voice.line(str(folder / file))
    voice.next(f"pip install -e {folder} && adapterhub plugins check {name}")


@plugins.command(short_help="Hold an installed plugin to its promises.")
@click.argument("name")
@click.option(
    "-O",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the method or trainer.",
)
@click.option(
    "--on",
    "bases",
    multiple=True,
    metavar="FAMILY-SCHEME",
    help="A tiny base for methods, such as phi3-nf4; default: llama-bf16, llama-nf4.",
)
@json_option
def check(name: str, options: tuple[str, ...], bases: tuple[str, ...], *, as_json: bool) -> None:
    """Run the conformance tests of what the plugin NAME declares, or of the one method, trainer,
    strategy or task of that name."""
    from adapterhub.cli.train_options import pairs

    out = Output(as_json=as_json)
    subjects = _subjects(name)
    given, places = pairs(options, option="--option"), [_place(text) for text in bases]
    out.say(f"checking {', '.join(f'the {s.kind} {s.name}' for s in subjects)}")
    with out.progress(unit="tests") as bar:
        task = bar.add_task(name, total=1, note="")
        findings = run_checks(
            subjects,
            options=given,
            bases=places,
            on_total=lambda total: bar.update(task, total=total),
            on_test=lambda: bar.advance(task),
        )
    out.data(
        [
            {
                "name": f.subject, "test": f.test, "on": f.variant or None,
                "outcome": f.outcome, "reason": f.reason,
            }
            for f in findings
        ]
    )  # fmt: skip
    _show(findings, out)
    failed = [finding for finding in findings if finding.outcome == "failed"]
    if failed:
        raise PluginError(
            f"{len(failed)} of {len(findings)} tests of {name} failed",
            hint="its promises are those of its record; plugins/README.md says what each means",
        )


def _show(findings: Sequence[Finding], out: Output) -> None:
    """One row a test, one column a record; then why, for what failed or was skipped."""
    names = list(dict.fromkeys(finding.subject for finding in findings))
    rows = []
    for test in dict.fromkeys(finding.test for finding in findings):
        cells = []
        for name in names:
            of = [f for f in findings if (f.test, f.subject) == (test, name)]
            cells.append(outcome_of(of) if of else "")
        rows.append((test.replace("_", " "), *cells))
    out.table(("test", *names), rows)
    for finding in findings:
        if finding.outcome == "failed":
            where = f" on {finding.variant}" if finding.variant else ""
            out.line(f"{finding.subject}, {finding.test}{where}: {finding.reason}")
    for reason in dict.fromkeys(f.reason for f in findings if f.outcome == "skipped"):
        out.line(f"skipped: {reason}")


def _subjects(name: str) -> list[Subject]:
    """What the plugin, or the record, of this name has to be held to."""
    admissions = catalog().admissions
    for admission in admissions:
        if admission.origin.plugin != name:
            continue
        if admission.problem:
            raise PluginError(
                f"{admission.origin} is broken: {admission.problem}",
                hint="ADAPTERHUB_TRACE_PLUGINS=1 adapterhub plugins shows how far it gets",
            )
        if admission.disabled:
            raise UsageError(
                f"{admission.origin} is switched off", hint="unset ADAPTERHUB_DISABLE_PLUGINS"
            )
        found = subjects_of(admission.records)
        if not found:
            raise UsageError(
                f"{name} declares no method, trainer, strategy or task",
                hint="a store is tested by adapterhub.testing.StoreConformance, in its own tests",
            )
        return found
    named = [s for a in admissions for s in subjects_of(a.records) if s.name == name]
    if not named:
        raise NotFoundError(
            f"no plugin, and nothing that one declares, is called {name!r}",
            hint="adapterhub plugins lists them",
        )
    return named


def _place(text: str) -> tuple[str, str]:
    family, _, scheme = text.rpartition("-")
    if family not in TINY_FAMILIES or scheme not in SCHEMES:
        raise UsageError(
            f"{text!r} names no tiny base",
            hint=f"such as llama-bf16, of {', '.join(TINY_FAMILIES)} and {', '.join(SCHEMES)}",
        )
    return family, scheme


def _check_unclaimed(name: str, kind: Kind) -> None:
    """Two plugins that declare one name are both refused, two packages of one name hide each other,
    and a plugin called like a command or `all` could not be told from it."""
    from adapterhub.cli.main import COMMANDS

    found = catalog()
    hint = "choose another name"
    if name in COMMANDS or name in ("all", "new", "check"):
        raise UsageError(f"{name!r} is a word of adapterhub's own commands", hint=hint)
    owner = next((a.origin for a in found.admissions if a.origin.plugin == name), None)
    if owner is not None:
        raise UsageError(f"there is a plugin {owner}", hint=hint)
    if find_spec(f"adapterhub_{name}") is not None:
        raise UsageError(f"there is a package adapterhub_{name}", hint=hint)
    shelves: dict[Kind, Shelf[Any]] = {
        "method": found.methods,
        "trainer": found.trainers,
        "strategy": found.strategies,
        "task": found.tasks,
    }
    if name in shelves[kind].entries:
        owner = shelves[kind].entries[name].owner
        raise UsageError(f"the {kind} {name!r} exists: {owner} declares it", hint=hint)


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
