"""A whole training run: a recipe in, a folder out.

Loads, attaches, trains and saves; how a step goes is the loop's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.domain.manifest import Manifest
from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import Example, Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import CapabilityError, Terminated, TrainingError, UsageError
from adapterhub.hub.staging import check_free, staged_folder
from adapterhub.models.bases import find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.train.data import check_lengths, load_items
from adapterhub.train.loop import Outcome, Step, fit
from adapterhub.train.objective import make_objective
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
    objective = make_objective(recipe)
    spec = base.spec if base else find_base(recipe.base)
    config = method_of(recipe.method).new_config(spec, recipe.options)
    items, data_sha256 = load_items(recipe.data, seed=recipe.seed)
    # Open the folder first: an hour of training must not end at a disk that refuses it.
    with staged_folder(out, overwrite=overwrite) as folder:
        base = base or load_base(spec, device=device)
        examples = objective.examples(items, base.chat)
        limit = min(recipe.max_length, spec.context_length or recipe.max_length)
        check_lengths(examples, limit=limit, name=Path(recipe.data).name)
        say(f"{len(examples)} rows on {spec.name} ({spec.scheme.name}, {base.device})")
        outcome, state = _fitted(recipe, base, config, objective, examples, on_step=on_step)
        manifest = save_adapter(
            folder,
            name=out.absolute().name,
            recipe=recipe,
            base=spec,
            config=config,
            state=state,
            config_version=record.config_version,
            data_sha256=data_sha256,
            outcome=outcome,
        )
    count = sum(tensor.numel() for tensor in state.values())
    return Trained(folder=out, manifest=manifest, outcome=outcome, parameters=count)


def _fitted(
    recipe: Recipe,
    base: Base,
    config: Mapping[str, Any],
    objective: Objective,
    examples: Sequence[Example],
    *,
    on_step: Callable[[Step], None],
) -> tuple[Outcome, dict[str, Any]]:
    """Attach, train, take the adapter off again; raises when not one step was good."""
    _check_targets(config, base)
    rack = Rack(base)
    adapter = rack.attach_fresh(SLOT, recipe.method, config, seed=recipe.seed)
    try:
        outcome = fit(recipe, base, adapter, objective, examples, on_step=on_step)
        state = adapter.state()
    finally:
        rack.detach(SLOT)
    if not outcome.steps:
        raise _nothing_done(outcome)
    return outcome, state


def _check_targets(config: Mapping[str, Any], base: Base) -> None:
    """Raises UsageError for a target that no linear layer of the base has: it would be skipped."""
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return
    sites = base.linear_sites()
    leaves = {site.rpartition(".")[2] for site in sites}
    for target in targets:
        if not any(site == target or site.endswith(f".{target}") for site in sites):
            close = difflib.get_close_matches(target, leaves, n=1)
            raise UsageError(
                f"{base.spec.name} has no linear layer called {target!r}",
                hint=f"did you mean {close[0]!r}?"
                if close
                else f"it has {', '.join(sorted(leaves))}",
            )


def _nothing_done(outcome: Outcome) -> BaseException:
    if outcome.stopped == "interrupted":
        return KeyboardInterrupt()
    if outcome.stopped == "terminated":
        return Terminated()
    return TrainingError("the loss was not finite at the first steps", hint="lower --lr")
