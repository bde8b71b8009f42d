"""What a finished run shows of its adapter: the probe, the centroid of its prompts, and golden
samples where they are asked for.

Whatever goes wrong here costs the proof, never what was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub.domain.evaluation import Item
from adapterhub.domain.manifest import Manifest
from adapterhub.errors import AdapterhubError, UsageError
from adapterhub.models.loader import Base
from adapterhub.runtime.embedding import Conversation
from adapterhub.train.data import EVAL_ROWS, held_out_items
from adapterhub.trust.golden import conversation_digest, golden_items
from adapterhub.trust.record import record_probe

if TYPE_CHECKING:
    from adapterhub.domain.recipe import Recipe
    from adapterhub.train.run import RunRows


def chosen_samples(recipe: Recipe, rows: RunRows, count: int) -> list[Item]:
    """The first rows of --eval-data, or of what a task never trains on, that no row of the
    training data equals. Raises UsageError where there are too few, or none to choose from."""
    if not count:
        return []
    if rows.eval_items:
        items = [item for _, item in rows.eval_items]
    else:
        items = held_out_items(recipe.data, EVAL_ROWS, seed=recipe.seed)
    if not items:
        raise UsageError(
            "golden samples are never taken from the rows that are trained on",
            hint="name others: --eval-data FILE|TASK",
        )
    trained_on = {conversation_digest(item.messages) for _, item in rows.items}
    return golden_items(items, count, trained_on=trained_on)


def prove(
    folder: Path,
    base: Base,
    manifest: Manifest,
    *,
    name: str,
    golden: Sequence[Item],
    prompts: Sequence[Conversation],
    say: Callable[[str], None],
) -> Manifest:
    """The manifest with what the stored adapter does; as it was, and said aloud, where that cannot
    be found out."""
    import torch

    try:
        return record_probe(folder, base, name=name, golden=golden, prompts=prompts, say=say)
    except AdapterhubError as error:
        say(f"note: saved without a probe: {error.message}")
    except torch.OutOfMemoryError:
        say(f"note: saved without a probe: {base.device} has no memory left for it")
    return manifest
