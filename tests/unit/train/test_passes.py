"""A batch is worth the same however it goes through the model: padded, packed, in parts, halved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.protocols import AttachedAdapter, Example
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import TrainingError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing.practice import examples, objective, shake
from adapterhub.testing.tiny import PAD, add_tiny_base
from adapterhub.train.data import collate, collate_packed
from adapterhub.train.loop import Outcome, fit
from adapterhub.train.passes import Passes

pytestmark = pytest.mark.models

RECIPE = Recipe(base="tiny", data="rows", steps=4, batch_size=4, learning_rate=1e-3)
FAMILIES = ("llama", "phi3", "qwen2", "mistral", "gpt2")


def attach(base: Base) -> AttachedAdapter:
    lora = method_of("lora")
    adapter = lora.attach(base, "one", lora.new_config(base.spec, {"rank": 4}))
    shake(adapter)
    return adapter


def gradients(base: Base, adapter: AttachedAdapter, batch: Mapping[str, Any]) -> Any:
    adapter.activate()
    parameters = adapter.parameters()
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    loss, count = objective().loss(base.model, batch)
    loss.backward()
    found = {name: tensor.grad for name, tensor in parameters.items()}
    for tensor in parameters.values():
        tensor.requires_grad_(False)
        tensor.grad = None
    return float(loss.detach()), count, found


# --- packing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [40, 90, 400])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_the_loss_and_the_gradient_of_padded_ones(
    family: str, limit: int, home: Path
) -> None:
    base = add_tiny_base(family, "bf16", home)
    adapter = attach(base)
    rows = examples(base)
    padded = gradients(base, adapter, collate(rows, pad=PAD, device="cpu"))
    packed = gradients(base, adapter, collate_packed(rows, limit=limit, pad=PAD, device="cpu"))
    assert packed[1] == padded[1]
    assert packed[0] == pytest.approx(padded[0], rel=1e-5)
    for name, gradient in padded[2].items():
        assert (packed[2][name] - gradient).norm() / gradient.norm() < 1e-4, name
    adapter.detach()


def test_a_packed_example_does_not_hear_its_neighbours(base: Base) -> None:
    import torch

    rows = examples(base)
    batch = collate_packed(rows, limit=400, pad=PAD, device="cpu")
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    with torch.no_grad():
        together = base.model(**given, use_cache=False).logits[0]
        place = 0
        for row in batch["examples"]:
            alone = base.model(torch.tensor([row.ids]), use_cache=False).logits[0]
            assert (together[place : place + len(row.ids)] - alone).abs().max() < 1e-4
            place += len(row.ids)


@pytest.mark.parametrize("batching", ["bucketed", "packed"])
def test_a_run_by_any_batching_learns_and_says_how_much_was_padding(
    batching: Any, base: Base
) -> None:
    outcome = run(base, replace(RECIPE, batching=batching, steps=30, learning_rate=1e-2))
    assert outcome.steps[-1].loss < 0.6 * outcome.steps[0].loss
    assert 0 <= outcome.padding < 0.5


def test_a_packed_run_is_the_padded_one(base: Base) -> None:
    padded, packed = (run(base, replace(RECIPE, batching=how)) for how in ("padded", "packed"))
    assert packed.padding == 0 < padded.padding
    losses = [step.loss for step in padded.steps]
    assert [step.loss for step in packed.steps] == pytest.approx(losses, rel=1e-4)


def run(base: Base, recipe: Recipe, **more: Any) -> Outcome:
    adapter = attach(base)
    try:
        return fit(recipe, base, adapter, more.pop("loss", objective()), examples(base), **more)
    finally:
        adapter.detach()


# --- precision and checkpointing --------------------------------------------------------------


def test_bf16_on_a_cpu_computes_in_bf16(base: Base) -> None:
    whole, half = (run(base, replace(RECIPE, precision=p)) for p in ("float32", "bf16"))
    assert run(base, RECIPE).steps[0].loss == whole.steps[0].loss
    assert half.steps[0].loss != whole.steps[0].loss
    assert half.steps[0].loss == pytest.approx(whole.steps[0].loss, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_activations_give_the_same_run(family: str, home: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    options = {"rank": 4, "dropout": 0.2}
    lora = method_of("lora")
    losses = []
    for checkpointing in (False, True):
        adapter = lora.attach(base, "one", lora.new_config(base.spec, options))
        recipe = replace(RECIPE, checkpointing=checkpointing)
        outcome = fit(recipe, base, adapter, objective(), examples(base))
        losses.append([step.loss for step in outcome.steps])
        adapter.detach()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in base.model.modules())


# --- out of memory ----------------------------------------------------------------------------


@dataclass
class Narrow:
    """The answer loss on a device that holds `room` rows; `seen` are the parts it was given."""

    room: int
    seen: list[int] = field(default_factory=list)

    def examples(self, *args: Any) -> list[Example]:
        return objective().examples(*args)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        import torch

        rows = len(batch["examples"])
        self.seen.append(rows)
        torch.rand(1)  # a failed attempt has drawn random numbers
        if rows > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return objective().loss(model, batch)


def test_running_out_of_memory_halves_what_goes_through_at_once_and_says_so(base: Base) -> None:
    said: list[str] = []
    narrow = Narrow(room=1)
    outcome = run(base, RECIPE, loss=narrow, say=said.append)
    assert narrow.seen == [4, 2, *[1] * 16]
    assert outcome.accumulate == 4
    assert said == [
        "out of memory: 2 rows at once from here on, as many a step",
        "out of memory: 1 rows at once from here on, as many a step",
    ]


def test_running_out_of_memory_changes_nothing_of_what_is_learnt(base: Base) -> None:
    wide, narrow = run(base, RECIPE), run(base, RECIPE, loss=Narrow(room=2))
    losses = [step.loss for step in wide.steps]
    assert [step.loss for step in narrow.steps] == pytest.approx(losses, rel=1e-4)


def test_a_row_that_does_not_fit_alone_ends_the_run(base: Base) -> None:
    with pytest.raises(TrainingError, match="one row alone does not fit"):
        run(base, RECIPE, loss=Narrow(room=0))


def test_evaluating_halves_as_well(base: Base) -> None:
    said: list[str] = []
    rows = examples(base)

    def mean(room: int) -> float:
        passes = Passes(
            recipe=RECIPE, base=base, objective=Narrow(room=room), part=4, say=said.append
        )
        return passes.mean_loss(rows)

    assert mean(1) == pytest.approx(mean(4), rel=1e-5)
    assert len(said) == 2


def test_evaluating_draws_no_random_number_and_sees_no_dropout(base: Base) -> None:
    import torch

    passes = Passes(recipe=RECIPE, base=base, objective=Narrow(room=4), part=4, say=print)
    rows: Sequence[Example] = examples(base)
    before = torch.get_rng_state()
    passes.mean_loss(rows)
    assert torch.equal(torch.get_rng_state(), before)
