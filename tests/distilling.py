"""A student on a tiny base, and what teaches it, for the tests of distillation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.domain.recipe import Recipe
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.practice import ROWS
from adapterhub.testing.tiny import PAD
from adapterhub.train.data import collate
from adapterhub.train.loop import fit
from adapterhub.train.objective import open_objective

SLOT = "trained"
ITEMS = [
    (line, Item(messages=(Message(role="user", content=question),), answer=answer))
    for line, (question, answer) in enumerate(ROWS, start=1)
]


def recipe(base: Base, **more: Any) -> Recipe:
    settings = {"steps": 30, "batch_size": 4, "learning_rate": 1e-2, **more}
    return Recipe(base=base.spec.name, data="rows", trainer="distill", **settings)


class Run:
    """A student on a base with what teaches it."""

    def __init__(self, base: Base, objective: Any, rack: Rack, asked: Recipe) -> None:
        self.base, self.objective, self.recipe, self.rack = base, objective, asked, rack
        self.examples = objective.examples(ITEMS, base.chat)
        config = method_of("lora").new_config(base.spec, {"rank": 4})
        self.student: AttachedAdapter = rack.attach_fresh(SLOT, "lora", config, seed=0)

    def loss(
        self, make: Callable[..., Mapping[str, Any]] = collate
    ) -> tuple[float, dict[str, Any]]:
        """(loss a token, its gradient by parameter) over all rows."""
        self.student.activate()
        parameters = dict(self.student.parameters())
        for tensor in parameters.values():
            tensor.requires_grad_(True)
        batch = make(self.examples, pad=PAD, device="cpu")
        total, count = self.objective.loss(self.base.model, batch)
        (total / count).backward()
        found = {name: tensor.grad for name, tensor in parameters.items()}
        for tensor in parameters.values():
            tensor.grad = None
        return float(total.detach()) / count, found

    def fit(self) -> tuple[float, float]:
        """The loss of the first step and of the last."""
        steps = fit(self.recipe, self.base, self.student, self.objective, self.examples).steps
        return steps[0].loss, steps[-1].loss


@contextmanager
def learning(base: Base, **more: Any) -> Iterator[Run]:
    asked, rack = recipe(base, **more), Rack(base)
    with open_objective(asked, base, rack, student=SLOT) as (objective, _):
        run = Run(base, objective, rack, asked)
        yield run
    rack.detach(SLOT)
