"""The optimizer: its rates, what stands in for it without CUDA, and its state as tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapterhub.domain.recipe import Recipe
from adapterhub.errors import UsageError
from adapterhub.train.optimizer import load_state, make_optimizer, set_rate, state_tensors

pytestmark = pytest.mark.models

RECIPE = Recipe(base="tiny", data="rows", learning_rate=1e-2)


def parameters() -> dict[str, Any]:
    import torch

    make = torch.Generator().manual_seed(0)
    names = ("x.lora_A.weight", "x.lora_B.weight", "x.lora_embedding_B", "x.bias")
    return {name: torch.randn(4, 4, generator=make).requires_grad_() for name in names}


def make(recipe: Recipe = RECIPE) -> tuple[Any, dict[str, Any], list[str]]:
    said: list[str] = []
    held = parameters()
    optimizer, kind = make_optimizer(recipe, held, device="cpu", say=said.append)
    assert kind == "adamw"
    return optimizer, held, said


def move(optimizer: Any, held: dict[str, Any], steps: int = 1) -> None:
    for _ in range(steps):
        for tensor in held.values():
            tensor.grad = tensor.detach().clone()
        optimizer.step()


def test_b_factors_have_a_rate_of_their_own() -> None:
    optimizer, held, _ = make(replace(RECIPE, lr_ratio=16.0))
    before = {name: tensor.detach().clone() for name, tensor in held.items()}
    set_rate(optimizer, 1e-3)
    move(optimizer, held)
    # Adam's first step has the length of its rate, whatever the gradient.
    moved = {name: float((held[name].detach() - before[name]).abs().mean()) for name in held}
    for name in ("x.lora_B.weight", "x.lora_embedding_B"):
        assert moved[name] == pytest.approx(16e-3, rel=1e-3)
    for name in ("x.lora_A.weight", "x.bias"):
        assert moved[name] == pytest.approx(1e-3, rel=1e-3)


def test_a_ratio_is_refused_where_no_factor_would_have_it() -> None:
    held = {name: t for name, t in parameters().items() if "_B" not in name}
    recipe = replace(RECIPE, lr_ratio=16.0, method="ia3")
    with pytest.raises(UsageError, match="--lr-ratio 16 would change nothing: what ia3 trains"):
        make_optimizer(recipe, held, device="cpu", say=lambda _: None)


def test_without_a_ratio_all_have_the_same_rate() -> None:
    optimizer, _, said = make()
    set_rate(optimizer, 1e-3)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]
    assert said == []


@pytest.mark.parametrize("kind", ["adamw8bit", "paged_adamw8bit"])
def test_without_cuda_another_optimizer_is_used_and_said_aloud(kind: Any) -> None:
    _, _, said = make(replace(RECIPE, optimizer=kind))
    assert said == [f"{kind} needs CUDA; torch's AdamW is used instead"]


def test_its_state_goes_on_exactly_where_it_was() -> None:
    import torch

    optimizer, held, _ = make()
    move(optimizer, held, steps=3)
    again, held_again, _ = make()
    with torch.no_grad():
        for name, tensor in held_again.items():
            tensor.copy_(held[name])
    load_state(again, *state_tensors(optimizer))
    move(optimizer, held, steps=2)
    move(again, held_again, steps=2)
    for name, tensor in held.items():
        assert torch.equal(tensor, held_again[name])
