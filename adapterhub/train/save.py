"""Write a trained adapter's folder: config, weights, manifest, card, recipe and loss curve.

Knows nothing of how it was trained beyond what the recipe says; the caller makes the folder appear.
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
from adapterhub.errors import TrainingError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.recipe_file import RECIPE_FILE, encode_recipe, recipe_table
from adapterhub.train.curve import draw_losses
from adapterhub.train.loop import Outcome

CURVE_FILE = "loss.png"


def save_adapter(
    folder: Path,
    *,
    name: str,
    recipe: Recipe,
    base: BaseSpec,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    config_version: int,
    data_sha256: str,
    outcome: Outcome,
) -> Manifest:
    """Write into `folder`. Raises TrainingError for a state that is not finite."""
    import torch
    from safetensors.torch import save

    manifest = Manifest(
        method=recipe.method,
        config_version=config_version,
        base=record_of(base),
        trainer=recipe.trainer,
        # The path of the data is the author's own business; what it held is in data_sha256.
        recipe={
            **recipe_table(recipe),
            "data": Path(recipe.data).name,
            "steps_done": len(outcome.steps),
        },
        data_sha256=data_sha256,
        written_by=f"adapterhub {__version__}",
    )
    broken = next((key for key, tensor in state.items() if not torch.isfinite(tensor).all()), None)
    if broken:
        raise TrainingError(f"{broken} is not finite after training", hint="lower --lr")
    (folder / CONFIG_FILE).write_bytes(encode_config(config))
    (folder / WEIGHTS_FILE).write_bytes(save(dict(state), metadata={"format": "pt"}))
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    (folder / CARD_FILE).write_text(render_card(manifest, name=name), encoding="utf-8")
    (folder / RECIPE_FILE).write_bytes(encode_recipe(recipe))
    if outcome.steps:
        draw_losses({name: outcome.steps}, folder / CURVE_FILE)
    return manifest
