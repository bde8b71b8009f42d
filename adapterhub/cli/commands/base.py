"""`adapterhub base`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.options import json_option, yes_option
from adapterhub.cli.output import Output, confirm, megabytes
from adapterhub.domain.quantization import SCHEMES, scheme_by_name
from adapterhub.errors import AdapterhubError, UsageError
from adapterhub.plugin.catalog import catalog, load_target

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec


@click.group(short_help="Add, list and show base models.")
def base() -> None:
    """Bases are frozen models, quantized once and kept on this machine under a name."""


@base.command(short_help="Quantize a model and keep it under a name.")
@click.argument("name")
@click.argument("source")
@click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    default="nf4",
    show_default=True,
    help="How the weights are stored.",
)
@json_option
def add(name: str, source: str, scheme: str, *, as_json: bool) -> None:
    """Quantize SOURCE and keep it as NAME: a hub id, a transformers folder or a GGUF file.

    A hub id may name a revision: owner/model@revision. Code that a model brings is never run.
    """
    from adapterhub.models.bases import add_base

    out = Output(as_json=as_json)
    spec = add_base(name, source, scheme_by_name(scheme), say=out.say)
    out.data(asdict(spec))
    _show(spec, out)
    out.next(f"adapterhub train --base {name} --data FILE.jsonl -o DIR")


@base.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the bases on this machine."""
    from adapterhub.models.bases import broken_bases, list_bases

    out = Output(as_json=as_json)
    bases, broken = list_bases(), broken_bases()
    out.data([asdict(spec) for spec in bases])
    out.table(
        ("base", "from", "family", "parameters", "stored as", "size"),
        [
            (
                spec.name,
                spec.id,
                spec.family,
                f"{spec.parameters / 1e6:.0f} M",
                spec.scheme.name,
                megabytes(spec.stored_bytes),
            )
            for spec in bases
        ],
    )
    for name, error in broken.items():
        out.say(f"{name} is broken: {error.message}")
    if broken:
        out.next(f"adapterhub base rm {next(iter(broken))}")
    elif not bases:
        out.next("adapterhub base add NAME SOURCE")


@base.command()
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Tell everything known of a base."""
    from adapterhub.models.bases import find_base

    out = Output(as_json=as_json)
    spec = find_base(name)
    out.data(asdict(spec))
    _show(spec, out)


@base.command(short_help="Say which base here a model is, if any.")
@click.argument("source")
@json_option
def match(source: str, *, as_json: bool) -> None:
    """Say which base here SOURCE is a copy of: a hub id, a folder or a GGUF file.

    A hub is asked for headers, norms and a sample of the weights, not for the whole model. A copy
    that is recognised, quantized or renamed though it may be, is remembered: adapters made for it
    are from then on adapters for that base. Exits 1 when no base here is this model.
    """
    from adapterhub.models.matching import match_source, remember

    out = Output(as_json=as_json)
    copy, judged = match_source(source, say=out.say)
    mine = [found for found in judged if found.is_it]
    out.data(
        {
            "source": asdict(copy),
            "bases": [
                {"base": f.base.name, "is_it": f.is_it, "verdict": f.verdict, "why": f.why}
                for f in judged
            ],
        }
    )
    out.table(
        ("base", "is it?", "verdict", "why"),
        [(f.base.name, "yes" if f.is_it else "no", f.verdict, f.why) for f in judged],
    )
    if not mine:
        raise AdapterhubError(
            f"no base on this machine is {source}",
            hint=f"add it: adapterhub base add NAME {source}",
        )
    for found in mine:
        if remember(found, copy):
            out.say(f"adapters made for {copy.id} are now taken for {found.base.name}")


@base.command(short_help="Write a base as one file of another format.")
@click.argument("name")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The new file, FILE.gguf."
)
@click.option(
    "--to", "form", default="gguf", show_default=True, metavar="FORMAT", help="What to write."
)
@json_option
def export(name: str, out: Path, form: str, *, as_json: bool) -> None:
    """Write exactly the weights that NAME stands for, in float32, so that another program runs the
    same base. For GGUF the base must come from a GGUF file, whose tokenizer is copied."""
    from adapterhub.models.bases import find_base
    from adapterhub.models.export import export_base

    voice = Output(as_json=as_json)
    record = catalog().exporter_for(form)
    exporter = load_target(record.target)()
    if not hasattr(exporter, "export_base"):
        raise UsageError(f"a base cannot be written as {form}", hint="--to gguf")
    export_base(find_base(name), exporter, out)
    size = out.stat().st_size
    voice.data({"path": str(out), "format": form, "bytes": size})
    voice.line(f"{out}   {form} · {megabytes(size)} in float32")


@base.command()
@click.argument("name")
@yes_option
def rm(name: str, *, yes: bool) -> None:
    """Remove a base from this machine."""
    from adapterhub.models.bases import broken_bases, find_base, remove_base

    broken = name in broken_bases()
    size = "broken" if broken else megabytes(find_base(name).stored_bytes)
    confirm(f"Remove {name} ({size})?", yes=yes)
    remove_base(name)
    Output().line(f"removed {name}")


def _show(spec: BaseSpec, out: Output) -> None:
    fingerprint = spec.fingerprint
    out.line(
        f"{spec.name}   {spec.id} · {spec.family} · {spec.parameters / 1e6:.0f} M parameters · "
        f"{megabytes(spec.stored_bytes)} as {spec.scheme}"
    )
    out.line(f"  source    {spec.source}")
    out.line(f"  revision  {spec.revision}")
    out.line(f"  context   {spec.context_length} tokens")
    arranged = f"   layers {fingerprint.arrangement}" if fingerprint.arrangement else ""
    out.line(f"  layout    {fingerprint.layout[:16]}   sketch {fingerprint.sketch[:16]}{arranged}")
    for alias in spec.aliases:
        commit = f"@{alias.revision[:12]}" if alias.revision else ""
        out.line(f"  copy      {alias.id}{commit}")
    if spec.note:
        out.line(f"  note      {spec.note}")
