"""Find the learning rate for a run that is to be, and remember it for when the run is resumed.

Loads, attaches and searches as the run itself will; what the trials say is judged elsewhere. The
result is kept in the run's checkpoint folder: the same command finds it there instead of searching
again, and it goes with the checkpoint once the run is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterhub.domain.digest import digest_of
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import FormatError, UsageError
from adapterhub.hub.files import atomic_write, disk
from adapterhub.hub.staging import check_free
from adapterhub.models.bases import find_base
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.train.checkpoint import Checkpoint
from adapterhub.train.checks import check_method, check_targets
from adapterhub.train.found import JSON_FILE, decode, document
from adapterhub.train.named_teacher import NamedTeacher, named_teacher
from adapterhub.train.objective import make_objective, open_objective
from adapterhub.train.run import SLOT, RunRows, checkpoint_of, examples_of, rows_of
from adapterhub.train.trials import Found, Search, set_aside, some_of

# What the search itself sets, or what must not keep a run from going on.
_FREE = ("learning_rate", "rate_found", "data", "eval_data", "checkpoint_every")


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """`recipe` holds the rate that was found. `base` is loaded if the search needed it; it did not
    if the result was `remembered`."""

    recipe: Recipe
    found: Found
    base: Base | None
    remembered: bool


def find_rate(
    recipe: Recipe,
    out: Path,
    *,
    start: float | None = None,
    device: str | None = None,
    overwrite: bool = False,
    restart: bool = False,
    keep: bool = True,
    say: Callable[[str], None] = lambda _: None,
    watch: Callable[[int, int, str], None] = lambda done, of, what: None,
    base: Base | None = None,
    allow: frozenset[str] = frozenset(),
) -> Searched:
    """Search round `start`, or round the usual rate, for a run into `out`; unless `restart`, a
    result that was kept is used. Without `keep` nothing beside `out` is read, written or removed.

    Raises what `train_adapter` would before it trains, TrainingError when every rate diverges, and
    UsageError when `out` has an unfinished run at a rate that was not searched for.
    """
    if keep:
        check_free(out, overwrite=overwrite)
    spec = base.spec if base else find_base(recipe.base)
    check_method(catalog().methods[recipe.method], spec)
    make_objective(recipe)
    config = method_of(recipe.method).new_config(spec, recipe.options)
    rows = rows_of(recipe, say=say)
    teacher = named_teacher(recipe, spec, allow=allow)
    checkpoint = checkpoint_of(recipe, out, spec, config, rows, teacher=teacher)
    memory = _Memory(checkpoint=checkpoint, start=start)
    with checkpoint.alone() if keep else nullcontext():
        found = memory.asked(restart=restart) if keep else None
        if found is not None:
            say(f"the rate was found before: {found.rate:g} (--restart searches again)")
            return Searched(recipe=_with(recipe, found), found=found, base=base, remembered=True)
        base = base or load_base(spec, device=device)
        check_targets(config, base)
        found = _search(
            recipe, base, config, rows, teacher=teacher, start=start, say=say, watch=watch
        )
        if keep:
            memory.keep(found)
    return Searched(recipe=_with(recipe, found), found=found, base=base, remembered=False)


def _search(
    recipe: Recipe,
    base: Base,
    config: dict[str, Any],
    rows: RunRows,
    *,
    teacher: NamedTeacher | None,
    start: float | None,
    say: Callable[[str], None],
    watch: Callable[[int, int, str], None],
) -> Found:
    rack = Rack(base)
    with open_objective(recipe, base, rack, student=SLOT, teacher=teacher, say=say) as opened:
        objective, _ = opened
        train = tuple(examples_of(recipe, base, objective, rows.items, recipe.data))
        if recipe.eval_data is not None:
            found = examples_of(recipe, base, objective, rows.eval_items, recipe.eval_data)
            held_out = some_of(found, seed=recipe.seed)
        else:
            train, held_out = set_aside(train, seed=recipe.seed)
        return Search(
            recipe=recipe,
            rack=rack,
            slot=SLOT,
            config=config,
            objective=objective,
            train=train,
            held_out=held_out,
            held_out_from="data" if recipe.eval_data is None else "eval_data",
            say=say,
            watch=watch,
        ).find(start)


def _with(recipe: Recipe, found: Found) -> Recipe:
    return replace(recipe, learning_rate=found.rate, rate_found=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Memory:
    """One search in a checkpoint's folder, under the digest of all it depends on."""

    checkpoint: Checkpoint
    start: float | None

    @property
    def path(self) -> Path:
        return self.checkpoint.folder / JSON_FILE

    @property
    def key(self) -> str:
        facts = {k: v for k, v in self.checkpoint.identity.items() if k not in _FREE}
        return digest_of([facts, self.start])

    def asked(self, *, restart: bool) -> Found | None:
        """What is known, after clearing the place if `restart`.

        Raises UsageError for another run's checkpoint, which would be in the way after minutes of
        searching.
        """
        if restart:
            self.checkpoint.remove()
        found = self.found()
        if found is None and self.checkpoint.step() is not None:
            raise UsageError(
                f"{self.checkpoint.folder} holds an unfinished run whose rate was given",
                hint="repeat that run's command, or add --restart to begin anew",
            )
        return found

    def found(self) -> Found | None:
        """That of the same run; None where there is none, or one of another run."""
        with disk("read", self.path):
            try:
                kept = json.loads(self.path.read_bytes())
            except (FileNotFoundError, NotADirectoryError, ValueError):
                return None
        if not isinstance(kept, dict) or kept.get("key") != self.key:
            return None
        try:
            return decode(kept["found"], name=JSON_FILE)
        except (FormatError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, found: Found) -> None:
        facts = {"key": self.key, "found": document(found)}
        atomic_write(self.path, json.dumps(facts).encode())
