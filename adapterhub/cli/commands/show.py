"""`adapterhub show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.cli.summary import bases_here, summary
from adapterhub.domain.manifest import COMPOSITION_FILE, CONFIG_FILE, MANIFEST_FILE, Manifest
from adapterhub.domain.refs import parse_ref
from adapterhub.formats.adapter_config import decode_config
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.claims import manifest_problems
from adapterhub.hub.client import Shown
from adapterhub.hub.client import show as show_ref
from adapterhub.hub.folder import infer_manifest, named_path, read_folder
from adapterhub.hub.verify import Problem, verify_folder


@click.command(short_help="Tell everything known of an adapter.")
@click.argument("subject", metavar="PATH_OR_REF")
@json_option
def show(subject: str, *, as_json: bool) -> None:
    """Tell what an adapter is, which base it is for and whether that is here, how it was made, what
    it was measured to do and what is wrong with it.

    A ref is asked of its remote, without fetching the weights.
    """
    out = Output(as_json=as_json)
    path = named_path(subject)
    if path is not None:
        folder = read_folder(path)
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        facts = {"folder": str(path), "bytes": size}
        found = verify_folder(path).problems
        _tell(subject, folder.manifest, folder.config, facts, problems=found, out=out)
        return
    shown = show_ref(parse_ref(subject))
    config = _config(shown.documents)
    facts = {
        "ref": str(shown.ref),
        "remote": shown.remote.name,
        "commit": shown.snapshot.commit,
        "repo_uuid": shown.snapshot.repo_uuid,
        "parent": shown.snapshot.parent,
        "created": shown.snapshot.created,
        "bytes": sum(entry.size for entry in shown.snapshot.files),
        "files": {entry.path: entry.size for entry in shown.snapshot.files},
        "installed": str(shown.installed.folder) if shown.installed else None,
    }
    manifest = _manifest(shown, config)
    problems = _problems(shown, manifest, config)
    _tell(subject, manifest, config, facts, problems=problems, out=out)
    if not shown.installed:
        out.next(f"adapterhub pull {shown.ref.id}")


def _config(documents: Mapping[str, bytes]) -> dict[str, Any] | None:
    data = documents.get(CONFIG_FILE)
    return None if data is None else decode_config(data)


def _manifest(shown: Shown, config: dict[str, Any] | None) -> Manifest:
    data = shown.documents.get(MANIFEST_FILE)
    return infer_manifest(config, None) if data is None else decode_manifest(data)


def _problems(
    shown: Shown, manifest: Manifest, config: Mapping[str, Any] | None
) -> tuple[Problem, ...]:
    """Everything `verify` finds in what was pulled, or what can be told without the weights."""
    if shown.installed is not None:
        return verify_folder(shown.installed.folder).problems
    composed = COMPOSITION_FILE in shown.documents
    return tuple(manifest_problems(manifest, config, composed=composed))


def _tell(
    name: str,
    manifest: Manifest,
    config: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    *,
    problems: Sequence[Problem],
    out: Output,
) -> None:
    bases = bases_here(manifest.base)
    plain = loads_strict(encode_manifest(manifest), name=MANIFEST_FILE)
    out.data(
        {
            "name": name,
            **facts,
            "manifest": plain,
            "config": dict(config or {}),
            "bases": [
                {"base": base.name, "verdict": found.verdict, "fits": found.fits}
                for base, found in bases
            ],
            "problems": [asdict(problem) for problem in problems],
        }
    )
    rank = f" r={config['r']}" if config and "r" in config else ""
    out.line(f"{name}   {manifest.method}{rank} · {megabytes(int(facts['bytes']))}")
    for label, value in summary(manifest, facts, bases):
        out.line(f"  {label:<9} {value}")
    for problem in problems:
        out.line(f"  ! {problem.code}: {problem.message}")
