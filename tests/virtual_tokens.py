"""Tiny bases with virtual tokens on them, and the same put there by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import method_of
from adapterhub.testing import practice
from adapterhub.testing.tiny import add_tiny_base

METHODS = ("prompt_tuning", "prefix_tuning", "p_tuning")
TOKENS = 5
Make = Callable[[str, str], Base]


def bases(home: Path) -> Make:
    return lambda family, scheme: add_tiny_base(family, scheme, home, dense=False)


def attach(
    base: Base, method: str, slot: str = "one", *, options: Mapping[str, Any] | None = None
) -> AttachedAdapter:
    made = {} if method == "lora" else {"tokens": TOKENS}
    config = method_of(method).new_config(base.spec, {**made, **(options or {})})
    with quiet():
        adapter = method_of(method).attach(base, slot, config, seed=3)
    practice.shake(adapter)
    return adapter


def counted(mask: Any) -> tuple[Any, Any]:
    return mask, (mask.cumsum(dim=-1) - 1).clamp(min=0)


def padded() -> tuple[Any, Any, Any]:
    """Ids, mask and positions (2, 12), the first row padded on the left."""
    import torch

    ids = torch.randint(8, 260, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    return (ids, *counted(mask))


def logits(model: Any, **batch: Any) -> Any:
    import torch

    model = model.model if isinstance(model, Base) else model
    with torch.no_grad(), quiet():
        return model(**batch).logits


def by_hand(base: Base, rows: Any, ids: Any, mask: Any, positions: Any) -> Any:
    """Logits for `ids` behind embeddings that are put there as inputs_embeds."""
    import torch

    n, batch = len(rows), len(ids)
    embedded = torch.cat(
        (rows.expand(batch, -1, -1), base.model.get_input_embeddings()(ids)), dim=1
    )
    return logits(
        base,
        inputs_embeds=embedded,
        attention_mask=torch.cat((mask.new_ones(batch, n), mask), dim=1),
        position_ids=torch.cat((torch.arange(n).expand(batch, -1), positions + n), dim=1),
    )[:, n:]


def generate(base: Base, ids: Any, mask: Any, **options: Any) -> Any:
    import torch

    with torch.no_grad(), quiet():
        return base.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            disable_compile=True,
            **options,
        )


def step_by_step(base: Base, ids: Any, mask: Any, *, steps: int) -> Any:
    """Greedy, every token from a pass over all before it; ends of turns are not chosen."""
    import torch

    for _ in range(steps):
        _, positions = counted(mask)
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        scores = logits(base, **batch, use_cache=False)[:, -1]
        scores[:, list(base.stop_ids)] = -torch.inf
        ids = torch.cat((ids, scores.argmax(dim=-1, keepdim=True)), dim=1)
        mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
    return ids


def recompute(base: Base) -> None:
    with quiet():
        base.model.gradient_checkpointing_enable({"use_reentrant": False})


def gradients(
    base: Base, adapter: AttachedAdapter, *, between: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    adapter.activate()
    parameters = adapter.parameters()
    for tensor in parameters.values():
        tensor.requires_grad_(True)
        tensor.grad = None
    ids, mask, positions = padded()
    base.model.train()
    with quiet():
        answered = base.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits
        between()
        answered[mask.bool()].logsumexp(dim=-1).sum().backward()
    base.model.eval()
    return {name: tensor.grad.clone() for name, tensor in parameters.items()}


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())
