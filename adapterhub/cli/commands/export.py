"""`adapterhub export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.destinations import folder_of, home_base
from adapterhub.cli.options import base_option, json_option
from adapterhub.cli.output import Output
from adapterhub.errors import UsageError
from adapterhub.hub.adapter_facts import read_facts
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.plugin.catalog import catalog, load_target

if TYPE_CHECKING:
    from adapterhub.domain.destination import AdapterExporter


@click.command(short_help="Write an adapter in another tool's format.")
@click.argument("subject", metavar="PATH_OR_REF")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The new file or folder."
)
@click.option("--to", "form", required=True, metavar="FORMAT", help="gguf, mlx or peft.")
@base_option
@json_option
def export(subject: str, out: Path, form: str, base_name: str | None, *, as_json: bool) -> None:
    """Write an adapter as OUT for other programs; its effect stays the same.

    Scalings are folded where the format has no place for them. What a format cannot hold is
    refused by name, and what is left behind is said.
    """
    voice = Output(as_json=as_json)
    record = catalog().exporter_for(form)
    path = folder_of(subject, voice)
    report = verify_folder(path)
    if not report.ok:
        raise UsageError(
            f"{subject}: {report.problems[0].message}", hint=f"adapterhub verify {subject}"
        )
    folder = read_folder(path)
    base = home_base(folder.manifest.base, base_name)
    facts = read_facts(folder, name=subject, family=base.family if base else None)
    from adapterhub.models.export import export_adapter

    exporter: AdapterExporter = load_target(record.target)()
    warnings, notes = export_adapter(path, facts, exporter, base, out)
    size = sum(f.stat().st_size for f in ([out] if out.is_file() else out.iterdir()))
    voice.data(
        {
            "path": str(out),
            "format": form,
            "bytes": size,
            "warnings": [asdict(warning) for warning in warnings],
            "notes": notes,
        }
    )
    voice.line(f"{out}   {form} · {size:,} bytes · {len(facts.modules)} modules")
    for note in (*(w.reason for w in warnings if w.rule != "format"), *notes):
        voice.say(f"note: {note}")
