"""A whole training run: a recipe in, a folder out.

Loads, attaches, trains and saves; how a step goes is the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.manifest import Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.protocols import Example, Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import (
    AdapterhubError,
    InterruptedRunError,
    Terminated,
    TerminatedRunError,
    TrainingError,
)
from adapterhub.formats.recipe_file import recipe_table
from adapterhub.formats.schema import to_plain
from adapterhub.hub.staging import check_free, staged_folder
from adapterhub.models.bases import find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.train.checkpoint import Checkpoint, checkpoint_folder
from adapterhub.train.checks import check_method, check_packing, check_room, check_targets
from adapterhub.train.data import Items, check_lengths, load_eval_items, load_items
from adapterhub.train.guard import check_labels
from adapterhub.train.loop import Outcome, Step, fit
from adapterhub.train.named_teacher import NamedTeacher, named_teacher, taught_by
from adapterhub.train.objective import make_objective, open_objective
from adapterhub.train.proof import chosen_samples, prove
from adapterhub.train.save import save_adapter

SLOT = "trained"
# What may change between a run and its continuation: where the same rows lie, and how often.
_FREE = ("data", "eval_data", "checkpoint_every")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a run left behind. `parameters` counts the adapter's trained numbers."""

    folder: Path
    manifest: Manifest
    outcome: Outcome
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRows:
    """What is trained on, and what is evaluated on, with the sha256 of each."""

    items: Items
    sha256: str
    eval_items: Items = ()
    eval_sha256: str | None = None


def train_adapter(
    recipe: Recipe,
    out: Path,
    *,
    device: str | None = None,
    overwrite: bool = False,
    restart: bool = False,
    files: Mapping[str, bytes] = MappingProxyType({}),
    on_step: Callable[[Step], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    base: Base | None = None,
    golden: int = 0,
    allow: frozenset[str] = frozenset(),
) -> Trained:
    """Train by the recipe and write the adapter to `out`; a loaded `base` is used if given, and
    `files` are put beside the adapter's own. Its probe is recorded, and `golden` of its answers.
    A teacher is verified first; what is wrong with it and in `allow` is remembered instead.

    A run that was stopped is InterruptedRunError, writes nothing to `out`, and goes on where it was
    when it is called again, unless `restart`. One that diverged is saved as of its last good step,
    and says so in its outcome. Raises UsageError, DataError and NotFoundError before anything is
    loaded.
    """
    check_free(out, overwrite=overwrite)
    record = catalog().methods[recipe.method]
    spec = base.spec if base else find_base(recipe.base)
    check_method(record, spec)
    make_objective(recipe)
    config = method_of(recipe.method).new_config(spec, recipe.options)
    rows = rows_of(recipe, say=say)
    samples = chosen_samples(recipe, rows, golden)
    teacher = named_teacher(recipe, spec, allow=allow)
    checkpoint = checkpoint_of(recipe, out, spec, config, rows, teacher=teacher)
    # Open the folder first: an hour of training must not end at a disk that refuses it.
    with checkpoint.alone(), staged_folder(out, overwrite=overwrite) as folder:
        if restart:
            checkpoint.remove()
        step = checkpoint.step()
        base = base or load_base(spec, device=device)
        say(f"{len(rows.items)} rows on {spec.name} ({spec.scheme.name}, {base.device})")
        _say_what_is_lost(base, rows, say)
        if step:
            say(f"resuming at step {step}, from {checkpoint.folder}")
        fitted = _fitted(
            recipe, base, config, rows, checkpoint, teacher=teacher, on_step=on_step, say=say
        )
        _raise_if_stopped(fitted.outcome, checkpoint)
        manifest = save_adapter(
            folder,
            name=out.absolute().name,
            recipe=recipe,
            base=spec,
            method=catalog().methods[record.stored_as or record.name],
            config=fitted.config,
            state=fitted.state,
            data_sha256=rows.sha256,
            outcome=fitted.outcome,
            facts=taught_by(teacher),
            allowed=fitted.allowed,
        )
        manifest = prove(
            folder,
            base,
            manifest,
            name=out.absolute().name,
            golden=samples,
            prompts=[item.messages for _, item in rows.items],
            say=say,
        )
        for name, data in files.items():
            (folder / name).write_bytes(data)
    checkpoint.remove()
    return Trained(
        folder=out, manifest=manifest, outcome=fitted.outcome, parameters=fitted.parameters
    )


# --- before anything is loaded ----------------------------------------------------------------


def rows_of(recipe: Recipe, *, say: Callable[[str], None] = lambda _: None) -> RunRows:
    """Raises UsageError when every row to evaluate on is trained on as well."""
    items, sha256 = load_items(recipe.data, seed=recipe.seed)
    if recipe.eval_data is None:
        return RunRows(items=items, sha256=sha256)
    eval_items, eval_sha256, dropped = load_eval_items(
        recipe.eval_data, seed=recipe.seed, trained=items
    )
    if dropped:
        say(
            f"{dropped} of {dropped + len(eval_items)} rows of {Path(recipe.eval_data).name} are "
            "trained on, and are left out of the evaluation"
        )
    return RunRows(items=items, sha256=sha256, eval_items=eval_items, eval_sha256=eval_sha256)


def checkpoint_of(
    recipe: Recipe,
    out: Path,
    spec: BaseSpec,
    config: Mapping[str, Any],
    rows: RunRows,
    *,
    teacher: NamedTeacher | None,
) -> Checkpoint:
    settings = {name: v for name, v in recipe_table(recipe).items() if name not in _FREE}
    identity = {
        **settings,
        "the rows of --data": rows.sha256,
        "the rows of --eval-data": rows.eval_sha256,
        "the base's weights": to_plain(record_of(spec)),
        "the method's config": dict(config),
        "the teacher's weights": teacher.identity if teacher is not None else None,
    }
    return Checkpoint(folder=checkpoint_folder(out), identity=identity)


# --- with the base loaded ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """An adapter after its training, taken off the base, and what of its teacher's was allowed."""

    outcome: Outcome
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    parameters: int
    allowed: tuple[str, ...]


def _fitted(
    recipe: Recipe,
    base: Base,
    config: Mapping[str, Any],
    rows: RunRows,
    checkpoint: Checkpoint,
    *,
    teacher: NamedTeacher | None,
    on_step: Callable[[Step], None],
    say: Callable[[str], None],
) -> _Fitted:
    """Attach, train, take the adapter off again."""
    check_targets(config, base)
    rack = Rack(base)
    with open_objective(recipe, base, rack, student=SLOT, teacher=teacher, say=say) as opened:
        objective, allowed = opened
        examples = examples_of(recipe, base, objective, rows.items, recipe.data)
        eval_examples = examples_of(
            recipe, base, objective, rows.eval_items, recipe.eval_data or ""
        )
        adapter = rack.attach_fresh(SLOT, recipe.method, config, seed=recipe.seed)
        try:
            check_packing(recipe, base, adapter)
            check_room(base, adapter, examples, name=Path(recipe.data).name)
            check_room(base, adapter, eval_examples, name=Path(recipe.eval_data or "").name)
            outcome = fit(
                recipe,
                base,
                adapter,
                objective,
                examples,
                eval_examples=eval_examples,
                on_step=on_step,
                checkpoint=checkpoint,
                say=say,
            )
            return _Fitted(
                outcome=outcome,
                config=adapter.config,
                state=adapter.state() if outcome.steps else {},
                parameters=sum(tensor.numel() for tensor in adapter.parameters().values()),
                allowed=allowed,
            )
        finally:
            rack.detach(SLOT)


def examples_of(
    recipe: Recipe, base: Base, objective: Objective, items: Items, data: str
) -> list[Example]:
    examples = objective.examples(items, base.chat)
    name = Path(data).name
    limit = min(recipe.max_length, base.spec.context_length or recipe.max_length)
    check_lengths(examples, limit=limit, name=name)
    check_labels(examples, name=name)
    return examples


def _say_what_is_lost(base: Base, rows: RunRows, say: Callable[[str], None]) -> None:
    roles = (message.role for _, item in rows.items for message in item.messages)
    if "system" in roles and base.chat.drops_system:
        say(f"note: {base.chat.dropping(base.spec.name)}, which some rows begin with")


def _raise_if_stopped(outcome: Outcome, checkpoint: Checkpoint) -> None:
    """Nothing is written to the adapter's folder, so that the same command may go on."""
    if not outcome.steps:
        raise _nothing_done(outcome)
    kinds: dict[str, type[AdapterhubError]] = {
        "interrupted": InterruptedRunError,
        "terminated": TerminatedRunError,
    }
    kind = kinds.get(outcome.stopped)
    if kind is not None:
        raise kind(
            f"{outcome.stopped} after {len(outcome.steps)} steps, which {checkpoint.folder} keeps",
            hint="run the same command again to go on from there, or with --restart to begin anew",
        )


def _nothing_done(outcome: Outcome) -> BaseException:
    if outcome.stopped == "interrupted":
        return KeyboardInterrupt()
    if outcome.stopped == "terminated":
        return Terminated()
    return TrainingError(
        "the loss was not finite at the first steps, or rose from there", hint="lower --lr"
    )
