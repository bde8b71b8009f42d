"""Write a trained adapter's folder: config, weights, manifest, card, recipe and loss curve.

Knows nothing of how it was trained beyond what the recipe says; the caller makes the folder appear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
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
from adapterhub.domain.method import Method
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import TrainingError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.card import render_card
from adapterhub.formats.manifest import encode_manifest
from adapterhub.formats.recipe_file import (
    RECIPE_FILE,
    encode_recipe,
    published_table,
    recipe_table,
)
from adapterhub.plugin.catalog import catalog
from adapterhub.train.curve import draw_losses
from adapterhub.train.loop import Outcome

CURVE_FILE = "loss.png"


def save_adapter(
    folder: Path,
    *,
    name: str,
    recipe: Recipe,
    base: BaseSpec,
    method: Method,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    data_sha256: str,
    outcome: Outcome,
    facts: Mapping[str, Any] = MappingProxyType({}),
    allowed: tuple[str, ...] = (),
) -> Manifest:
    """Write into `folder`, as an adapter of `method`, with which the recipe's stores what it made.
    The manifest's recipe says `facts` of the run as well, and the manifest what was `allowed`.

    Raises TrainingError for a state that is not finite.
    """
    import torch
    from safetensors.torch import save

    manifest = Manifest(
        method=method.name,
        config_version=method.config_version,
        base=record_of(base),
        plugin=catalog().plugin_of(method.name),
        trainer=recipe.trainer,
        recipe={**published(recipe), **_facts(outcome), **facts},
        data_sha256=data_sha256,
        written_by=f"adapterhub {__version__}",
        allowed=allowed,
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


def published(recipe: Recipe) -> dict[str, Any]:
    """The recipe for everybody to read, as a table."""
    return published_table(recipe_table(recipe))


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts = {
        "steps_done": len(outcome.steps),
        "optimizer": outcome.optimizer,
        "accumulate": outcome.accumulate,
    }
    if outcome.kept != len(outcome.steps):
        facts["step_kept"] = outcome.kept
    if outcome.eval_loss is not None and math.isfinite(outcome.eval_loss):
        facts["eval_loss"] = outcome.eval_loss
    return facts
