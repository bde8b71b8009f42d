"""Write a trained adapter's folder: config, weights, manifest, card, recipe and loss curve.

The folder appears whole under its name or not at all. Knows nothing of how it was trained
beyond what the recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapterhub import __version__
from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import (
    CARD_FILE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
)
from adapterhub.domain.match import record_of
from adapterhub.domain.recipe import Recipe
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.recipe_file import encode_recipe, recipe_table
from adapterhub.hub.staging import staged_folder
from adapterhub.train.curve import draw_losses
from adapterhub.train.loop import Outcome

RECIPE_FILE = "recipe.toml"
CURVE_FILE = "loss.png"


def save_adapter(
    out: Path,
    *,
    recipe: Recipe,
    base: BaseSpec,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    config_version: int,
    data_sha256: str,
    outcome: Outcome,
    overwrite: bool = False,
) -> Manifest:
    """Raises UsageError when `out` holds something and `overwrite` is off."""
    from safetensors.torch import save

    manifest = Manifest(
        method=recipe.method,
        config_version=config_version,
        base=record_of(base),
        trainer=recipe.trainer,
        recipe={**recipe_table(recipe), "steps_done": len(outcome.steps)},
        data_sha256=data_sha256,
        written_by=f"adapterhub {__version__}",
    )
    with staged_folder(out, overwrite=overwrite) as folder:
        (folder / CONFIG_FILE).write_bytes(encode_config(config))
        (folder / WEIGHTS_FILE).write_bytes(save(dict(state), metadata={"format": "pt"}))
        (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
        (folder / CARD_FILE).write_text(render_card(manifest, name=out.name), encoding="utf-8")
        (folder / RECIPE_FILE).write_bytes(encode_recipe(recipe))
        if outcome.steps:
            draw_losses({out.name: outcome.steps}, folder / CURVE_FILE)
    return manifest
