"""The objective a recipe asks for, with the teacher it names.

Knows records and recipes; what is minimised is the trainer's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from adapterhub.domain.protocols import Objective, Teacher
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import UsageError
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.runtime.attach import Rack
from adapterhub.train.named_teacher import NamedTeacher, named_teacher
from adapterhub.train.teacher import open_teacher


def make_objective(recipe: Recipe, *, teacher: Teacher | None = None) -> Objective:
    """The objective by its options alone. One that learns from a teacher refuses examples until it
    has one, so this also says early, before anything is loaded, whether a recipe makes sense.

    Raises UsageError for a teacher that this trainer has no use for, or lacks.
    """
    record = catalog().trainers[recipe.trainer]
    named = bool(recipe.teacher or recipe.teacher_base)
    if named and not record.teacher:
        raise UsageError(
            f"the trainer {record.name} learns from no teacher", hint="use --trainer distill"
        )
    if record.teacher and not named:
        raise UsageError(
            f"the trainer {record.name} needs a teacher",
            hint="name adapters, or another base: --teacher REF, --teacher-base NAME",
        )
    if record.teacher and not recipe.teacher and recipe.teacher_base == recipe.base:
        raise UsageError(
            f"teacher and student are the same, the bare base {recipe.base}",
            hint="name adapters to learn from (--teacher REF) or another --teacher-base",
        )
    objective: Objective = load_target(record.target)(recipe.trainer_options, teacher=teacher)
    return objective


@contextmanager
def open_objective(
    recipe: Recipe,
    base: Base,
    rack: Rack,
    *,
    student: str,
    teacher: NamedTeacher | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Objective, tuple[str, ...]]]:
    """The objective for a run on `base`, whose adapter is, or will be, in the slot `student` of
    `rack`; `teacher` is the recipe's if it was found before. Beside it, what is wrong with the
    teacher's adapters and was allowed. The teacher leaves when the block ends, and before the
    student does or after it."""
    make_objective(recipe)
    named = teacher or named_teacher(recipe, base.spec)
    with ExitStack() as stack:
        opened = None
        if named is not None:
            opened = open_teacher(named, base, rack, student=student, say=say)
            stack.callback(opened.close)
        yield make_objective(recipe, teacher=opened), opened.allowed if opened is not None else ()
