"""`adapterhub tree`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output, printable
from adapterhub.cli.summary import bases_here
from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.domain.match import base_text
from adapterhub.domain.scales import scales_text
from adapterhub.hub.family import Kin, family

if TYPE_CHECKING:
    from rich.tree import Tree


@click.command(short_help="Draw what an adapter was made from.")
@click.argument("ref", metavar="PATH_OR_REF")
@json_option
def tree(ref: str, *, as_json: bool) -> None:
    """Draw the family of an adapter: the base at the root, then what it was merged, distilled,
    extracted or converted from, as far back as this machine and its remotes know.

    Each is shown with its weight, its commit, and whether its weights still are those that were
    recorded. Remotes are asked for what they say of an adapter, not for its weights.
    """
    from rich.text import Text
    from rich.tree import Tree

    out = Output(as_json=as_json)
    root = family(ref)
    assert root.manifest is not None  # what was asked for was found
    out.data({"base": _base(root.manifest), **_plain(root)})
    here = [base.name for base, found in bases_here(root.manifest.base) if found.fits]
    known = f" · here as {here[0]}" if here else ""
    drawn = Tree(Text(printable(f"{base_text(root.manifest.base)}{known}")))
    _grow(drawn, root, root.manifest.base)
    out.drawing(drawn)


def _grow(parent: Tree, kin: Kin, base: BaseRecord) -> None:
    from rich.text import Text

    branch = parent.add(Text(printable(_label(kin, base))))
    for origin in kin.origins:
        _grow(branch, origin, base)


def _label(kin: Kin, base: BaseRecord) -> str:
    """`0.5 * me/my-json   lora · 3f9c1e2a4b5d · sha256 agrees`"""
    origin, manifest = kin.origin, kin.manifest
    adapter = origin is None or origin.is_adapter
    name = f"{origin.weight:g} * {kin.name}" if origin is not None and adapter else kin.name
    if origin is not None and origin.role != "part":
        name = f"{origin.role}: {name}"
    facts = []
    if manifest is not None:
        how = f", by {manifest.strategy}" if manifest.strategy else ""
        facts.append(f"{manifest.method}{how}")
        if manifest.base.id.casefold() != base.id.casefold():
            facts.append(f"for {base_text(manifest.base)}")
    commit = kin.commit or (origin.commit if origin else None)
    if commit:
        facts.append(commit[:12])
    if kin.unknown is not None:
        facts.append(f"unknown here: {kin.unknown}")
    elif origin is not None and adapter:
        facts.append(_agreement(kin))
    if origin is not None and origin.scales:
        facts.append(scales_text(origin.scales))
    if kin.repeated:
        facts.append("as above")
    return f"{name}   {' · '.join(facts)}".rstrip()


def _agreement(kin: Kin) -> str:
    if kin.agrees is None:
        return "sha256 not recorded" if kin.sha256 else "sha256 not known"
    if kin.agrees:
        return "sha256 agrees"
    recorded = kin.origin.sha256 if kin.origin else None
    return f"changed since: sha256 {str(kin.sha256)[:12]}, was {str(recorded)[:12]}"


def _base(manifest: Manifest) -> dict[str, Any]:
    return {"id": manifest.base.id, "revision": manifest.base.revision}


def _plain(kin: Kin) -> dict[str, Any]:
    origin, manifest = kin.origin, kin.manifest
    return {
        "name": kin.name,
        "role": origin.role if origin else None,
        "weight": origin.weight if origin and origin.is_adapter else None,
        "scales": dict(origin.scales) if origin and origin.scales else None,
        "method": manifest.method if manifest else None,
        "strategy": manifest.strategy if manifest else None,
        "made_for": manifest.base.id if manifest else None,
        "commit": kin.commit or (origin.commit if origin else None),
        "sha256": kin.sha256,
        "recorded_sha256": origin.sha256 if origin else None,
        "agrees": kin.agrees,
        "unknown": kin.unknown,
        "repeated": kin.repeated,
        "made_from": [_plain(item) for item in kin.origins],
    }
