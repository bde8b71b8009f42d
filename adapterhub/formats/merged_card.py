"""Write the card of a model that adapters were merged into.

Knows the manifest and the form of a card; measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import yaml

from adapterhub.domain.manifest import Manifest
from adapterhub.formats.card import HUB_ID, base_text, parents_table, table


def render_merged_card(manifest: Manifest, *, name: str, forms: Sequence[tuple[str, ...]]) -> str:
    """README.md: YAML front matter, then a page for people. `forms` are the lines of the table of
    what merging lost, its head the first of them; none where nothing was measured."""
    recipe = manifest.recipe or {}
    front = yaml.safe_dump(_front(manifest), sort_keys=False, allow_unicode=True)
    into = recipe.get("into", "an unknown type")
    base = base_text(replace(manifest.base, scheme=None))
    parts = [
        f"# {name}\n\nThis is {base} with adapters merged into its weights, stored as {into}. "
        "Plain transformers loads it.",
        str(recipe.get("note") or ""),
        parents_table(manifest),
        _lost(forms),
    ]
    body = "\n\n".join(filter(None, parts))
    return f"---\n{front}---\n\n{body}\n"


def _front(manifest: Manifest) -> dict[str, object]:
    front: dict[str, object] = {"library_name": "transformers"}
    if HUB_ID.fullmatch(manifest.base.id):  # the Hub refuses a card that names a base it lacks
        relation = "merge" if len(manifest.parents) > 1 else "finetune"
        front |= {"base_model": manifest.base.id, "base_model_relation": relation}
    return {**front, "tags": ["adapterhub", "merge"], "pipeline_tag": "text-generation"}


def _lost(forms: Sequence[tuple[str, ...]]) -> str:
    if not forms:
        return "## What merging lost\n\nNot measured."
    return (
        "## What merging lost\n\nEach form computed in float32, from the files as written. Drift "
        "is the relative change of the logits against the adapters attached; cosine and strength "
        "compare its effect on the base with theirs.\n\n" + table(forms[0], list(forms[1:]))
    )
