"""A whole training run: a recipe in, a folder out.

Loads, attaches, trains and saves; how a step goes is the loop's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapterhub.domain.manifest import Manifest
from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import CapabilityError, TrainingError
from adapterhub.hub.staging import check_free
from adapterhub.models.bases import find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.train.data import check_lengths, load_items
from adapterhub.train.loop import Outcome, Step, fit
from adapterhub.train.save import save_adapter

SLOT = "trained"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a run left behind. `parameters` counts the adapter's trained numbers."""

    folder: Path
    manifest: Manifest
    outcome: Outcome
    parameters: int


def train_adapter(
    recipe: Recipe,
    out: Path,
    *,
    device: str | None = None,
    overwrite: bool = False,
    on_step: Callable[[Step], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    base: Base | None = None,
) -> Trained:
    """Train by the recipe and write the adapter to `out`; a loaded `base` is used if given.

    A run that was interrupted or diverged is saved as of its last good step, and says so in its
    outcome. Raises UsageError, DataError and NotFoundError before anything is loaded.
    """
    check_free(out, overwrite=overwrite)
    record = catalog().methods[recipe.method]
    if Capability.TRAIN not in record.capabilities:
        raise CapabilityError(f"{recipe.method} is not trained", hint="see `adapterhub methods`")
    objective: Objective = load_target(catalog().trainers[recipe.trainer].target)()
    spec = base.spec if base else find_base(recipe.base)
    config = method_of(recipe.method).new_config(spec, recipe.options)
    items, data_sha256 = load_items(recipe.data, seed=recipe.seed)
    base = base or load_base(spec, device=device)
    examples = objective.examples(items, base.chat)
    limit = min(recipe.max_length, spec.context_length or recipe.max_length)
    check_lengths(examples, limit=limit, name=Path(recipe.data).name)
    say(f"{len(examples)} rows on {spec.name} ({spec.scheme.name}, {base.device})")
    rack = Rack(base)
    adapter = rack.attach_fresh(SLOT, recipe.method, config, seed=recipe.seed)
    try:
        outcome = fit(recipe, base, adapter, objective, examples, on_step=on_step)
        state = adapter.state()
    finally:
        rack.detach(SLOT)
    if not outcome.steps:
        raise _nothing_done(outcome)
    manifest = save_adapter(
        out,
        recipe=recipe,
        base=spec,
        config=config,
        state=state,
        config_version=record.config_version,
        data_sha256=data_sha256,
        outcome=outcome,
        overwrite=overwrite,
    )
    count = sum(tensor.numel() for tensor in state.values())
    return Trained(folder=out, manifest=manifest, outcome=outcome, parameters=count)


def _nothing_done(outcome: Outcome) -> BaseException:
    if outcome.stopped == "interrupted":
        return KeyboardInterrupt()
    return TrainingError("the loss was not finite at the first step", hint="lower --lr")
