"""Train an adapter on a tiny base for a few steps, through the loop that real runs use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.protocols import AttachedAdapter, ChatTokens, Example, Objective
from adapterhub.domain.recipe import Recipe
from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.plugin.stored import open_method
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


def items() -> list[tuple[int, Item]]:
    """ROWS as an objective reads them."""
    return [
        (line, Item(messages=(Message(role="user", content=question),), answer=answer))
        for line, (question, answer) in enumerate(ROWS, start=1)
    ]


def examples(base: Base) -> list[Example]:
    return objective().examples(items(), base.chat)


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


def gradients(
    base: Base, adapter: AttachedAdapter, *, checkpointing: bool = False
) -> dict[str, Any]:
    """Name -> gradient of the mean loss over ROWS; leaves nothing behind. With `checkpointing`
    activations are computed again in the backward pass."""
    import torch

    adapter.activate()
    parameters = adapter.parameters()
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    batch = collate(examples(base), pad=base.tokenizer.pad_token_id, device=base.device)
    base.model.train()
    if checkpointing:
        with quiet():  # newer releases have another name for it, and say so
            base.model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss, count = objective().loss(base.model, batch)
            (loss / count).backward()
        return {n: t.grad.clone() for n, t in parameters.items() if t.grad is not None}
    finally:
        if checkpointing:
            with quiet():
                base.model.gradient_checkpointing_disable()
        base.model.eval()
        for tensor in parameters.values():
            tensor.requires_grad_(False)
            tensor.grad = None


class Overheard:
    """A model whose last logits are kept, with their gradient after a backward pass."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.logits: Any = None

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        output = self._model(*args, **inputs)
        output.logits.retain_grad()
        self.logits = output.logits
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class TinyTeacher:
    """`adapterhub.domain.protocols.Teacher`: a base of its own, with an adapter that says
    something else than the bare base."""

    name = "tiny teacher"
    digest = "tiny teacher"

    def __init__(self, base: Base) -> None:
        self._base = base
        self.vocabulary = int(base.model.config.vocab_size)
        method = open_method(catalog().methods["lora"])
        adapter = method.attach(base, "teacher", method.new_config(base.spec, {}), seed=11)
        shake(adapter, seed=11)
        adapter.activate()

    @property
    def chat(self) -> ChatTokens:
        return self._base.chat

    def logits(self, batch: Mapping[str, Any]) -> Any:
        import torch

        inputs = ("input_ids", "attention_mask", "position_ids")
        with torch.no_grad():
            answered = self._base.model(
                **{name: batch[name] for name in inputs},
                logits_to_keep=batch["columns"],
                use_cache=False,
            )
        return answered.logits.float()

    def close(self) -> None: ...
