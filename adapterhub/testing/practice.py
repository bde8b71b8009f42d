"""Train an adapter on a tiny base for a few steps, through the loop that real runs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.protocols import AttachedAdapter, Example, Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.train.data import collate
from adapterhub.train.loop import Outcome, Step, fit

ROWS = (("2 + 2", "4"), ("the sky", "blue"), ("abc", "def"), ("안녕", "hello"))


def shake(adapter: AttachedAdapter, *, seed: int = 0, size: float = 0.05) -> None:
    """Add seeded noise to every parameter, so that nothing stays zero."""
    import torch

    make = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for _, tensor in sorted(adapter.parameters().items()):
            tensor.add_(torch.randn(tensor.shape, generator=make).to(tensor), alpha=size)


def objective() -> Objective:
    made: Objective = load_target(catalog().trainers["sft"].target)({}, teacher=None)
    return made


def examples(base: Base) -> list[Example]:
    items = [
        (line, Item(messages=(Message(role="user", content=question),), answer=answer))
        for line, (question, answer) in enumerate(ROWS, start=1)
    ]
    return objective().examples(items, base.chat)


def train(
    base: Base,
    adapter: AttachedAdapter,
    *,
    steps: int = 3,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Outcome:
    """A few steps over ROWS; the adapter is active afterwards."""
    recipe = Recipe(
        base=base.spec.name, data="practice", steps=steps, batch_size=2, learning_rate=1e-2
    )
    return fit(recipe, base, adapter, objective(), examples(base), on_step=on_step)


def gradients(base: Base, adapter: AttachedAdapter) -> dict[str, Any]:
    """Stored name -> gradient of the mean loss over ROWS; leaves nothing behind."""
    adapter.activate()
    parameters = adapter.parameters()
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    batch = collate(examples(base), pad=base.tokenizer.pad_token_id, device=base.device)
    base.model.train()
    try:
        loss, count = objective().loss(base.model, batch)
        (loss / count).backward()
        return {n: t.grad.clone() for n, t in parameters.items() if t.grad is not None}
    finally:
        base.model.eval()
        for tensor in parameters.values():
            tensor.requires_grad_(False)
            tensor.grad = None
