"""`adapterhub show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, megabytes
from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE, Manifest
from adapterhub.domain.refs import parse_ref
from adapterhub.formats.adapter_config import decode_config
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from adapterhub.formats.strict_json import loads_strict
from adapterhub.hub.client import Shown
from adapterhub.hub.client import show as show_ref
from adapterhub.hub.folder import has_tensors, infer_manifest, named_path, read_folder


@click.command(short_help="Tell everything known of an adapter.")
@click.argument("subject", metavar="PATH_OR_REF")
@json_option
def show(subject: str, *, as_json: bool) -> None:
    """Tell what an adapter is, which base it is for and how it was made.

    A ref is asked of its remote, without fetching the weights.
    """
    out = Output(as_json=as_json)
    path = named_path(subject)
    if path is not None:
        folder = read_folder(path)
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        facts = {"folder": str(path), "bytes": size}
        _tell(subject, folder.manifest, folder.config, facts, out)
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
    _tell(subject, _manifest(shown, config), config, facts, out)
    if not shown.installed:
        out.next(f"adapterhub pull {shown.ref.id}")


def _config(documents: Mapping[str, bytes]) -> dict[str, Any] | None:
    data = documents.get(CONFIG_FILE)
    return None if data is None else decode_config(data)


def _manifest(shown: Shown, config: dict[str, Any] | None) -> Manifest:
    data = shown.documents.get(MANIFEST_FILE)
    return infer_manifest(config, None) if data is None else decode_manifest(data)


def _tell(
    name: str,
    manifest: Manifest,
    config: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    out: Output,
) -> None:
    plain = loads_strict(encode_manifest(manifest), name=MANIFEST_FILE)
    out.data({"name": name, **facts, "manifest": plain, "config": dict(config or {})})
    rank = f" r={config['r']}" if config and "r" in config else ""
    out.line(f"{name}   {manifest.method}{rank} · {megabytes(int(facts['bytes']))}")
    for label, value in _lines(manifest, facts):
        out.line(f"  {label:<9} {value}")


def _lines(manifest: Manifest, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    base = manifest.base
    trained = str(base.scheme) if base.scheme else "an unknown precision"
    made = "written for" if has_tensors(manifest.method) is False else "trained on"
    lines = [("base", f"{base.id} · {made} {trained}")]
    if facts.get("commit"):
        lines.append(("revision", f"{facts['commit'][:12]} on {facts['remote']}"))
    lines.append(("made by", _maker(manifest)))
    lines += [
        ("parent", f"{parent.weight:g} * {parent.ref} ({parent.sha256[:12]})")
        for parent in manifest.parents
    ]
    lines += [
        ("result", f"{r.task} {r.metric}: {r.score:g} (base {r.base_score:g}, {r.n} items)")
        for r in manifest.results
    ]
    if "installed" in facts:
        lines.append(("here", facts["installed"] or "no"))
    return lines


def _maker(manifest: Manifest) -> str:
    if manifest.inferred:
        return "unknown: there is no adapterhub.json, so this is read from its config"
    recipe = manifest.recipe or {}
    how = f"{manifest.trainer}, {recipe.get('steps_done', '?')} steps" if manifest.trainer else ""
    if has_tensors(manifest.method) is False:
        chosen = recipe.get("choose")
        how = f"design, {chosen} examples chosen from {recipe.get('data')}" if chosen else "design"
    how = how or (f"stacking ({manifest.strategy})" if manifest.strategy else "unknown means")
    return f"{how} · {manifest.written_by or 'unknown'}"
