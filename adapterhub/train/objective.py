"""The objective a recipe asks for, with the teacher it names.

Knows records and recipes; what is minimised is the trainer's own business.
"""

from __future__ import annotations

from adapterhub.domain.protocols import Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import UsageError
from adapterhub.plugin.catalog import catalog, load_target


def make_objective(recipe: Recipe) -> Objective:
    """Raises UsageError for a teacher that this trainer has no use for."""
    record = catalog().trainers[recipe.trainer]
    if not record.teacher and (recipe.teacher or recipe.teacher_base):
        raise UsageError(
            f"the trainer {record.name} learns from no teacher", hint="use --trainer distill"
        )
    objective: Objective = load_target(record.target)(recipe.trainer_options, teacher=None)
    return objective
