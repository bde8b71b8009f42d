"""The training loop: it learns the answer, stops well, and touches nothing but the adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.evaluation import Item
from adapterhub.domain.protocols import AttachedAdapter, ChatTokens, Example
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import Terminated, TrainingError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing.plain import base_bytes
from adapterhub.testing.practice import examples, objective, shake
from adapterhub.testing.tiny import PAD, add_tiny_base
from adapterhub.train.data import collate
from adapterhub.train.loop import Outcome, Step, fit

pytestmark = pytest.mark.models

RECIPE = Recipe(base="tiny", data="rows", steps=6, batch_size=4, learning_rate=1e-2)


def attach(base: Base, slot: str = "one") -> AttachedAdapter:
    lora = method_of("lora")
    return lora.attach(base, slot, lora.new_config(base.spec, {"rank": 4}))


def run(base: Base, adapter: AttachedAdapter, recipe: Recipe = RECIPE, **more: Any) -> Outcome:
    return fit(recipe, base, adapter, more.pop("loss", objective()), examples(base), **more)


def sha_of(adapter: AttachedAdapter) -> str:
    from safetensors.torch import save

    return sha256_hex(save(adapter.state()))


@dataclass
class Altered:
    """The answer loss, changed from its `after`-th part on."""

    change: Callable[[Any], Any]
    after: int = 0
    calls: int = 0

    def examples(self, items: Iterable[tuple[int, Item]], chat: ChatTokens) -> list[Example]:
        return objective().examples(items, chat)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        loss, count = objective().loss(model, batch)
        self.calls += 1
        return (loss if self.calls <= self.after else self.change(loss)), count


# --- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_the_cross_entropy_of_the_answers_alone(family: str, home: Path) -> None:
    import torch

    base = add_tiny_base(family, "bf16", home)
    rows, expected, tokens = examples(base), 0.0, 0
    for row in rows:
        with torch.inference_mode():
            logits = base.model(input_ids=torch.tensor([row.ids])).logits[0]
        chances = torch.log_softmax(logits, dim=-1)
        for place in range(row.answer_start, len(row.ids)):
            expected -= float(chances[place - 1, row.ids[place]])
            tokens += 1
    with torch.inference_mode():
        loss, count = objective().loss(base.model, collate(rows, pad=PAD, device="cpu"))
    assert count == tokens
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_what_stands_in_the_prompt_is_not_learnt(base: Base) -> None:
    """A model that has every answer right loses nothing, whatever it says of the prompt."""
    import torch

    batch = collate(examples(base), pad=PAD, device="cpu")
    right = torch.nn.functional.one_hot(batch["labels"].clamp(min=0), 300).float() * 1e4

    def foretell(*, logits_to_keep: Any, **_: Any) -> Any:
        shifted = torch.roll(right, -1, dims=1)[:, logits_to_keep]
        return SimpleNamespace(logits=shifted)

    loss, count = objective().loss(foretell, batch)
    assert float(loss) == 0
    assert count == int((batch["labels"] != -100).sum())


def test_the_first_step_reports_the_mean_loss_a_token(base: Base) -> None:
    import torch

    with torch.inference_mode():
        loss, count = objective().loss(base.model, collate(examples(base), pad=PAD, device="cpu"))
    outcome = run(base, attach(base))
    assert outcome.steps[0].loss == pytest.approx(float(loss) / count, rel=1e-5)


def test_a_few_steps_lower_the_loss(base: Base) -> None:
    outcome = run(base, attach(base), replace(RECIPE, steps=30))
    assert outcome.stopped == "finished"
    assert outcome.steps[-1].loss < 0.5 * outcome.steps[0].loss
    assert [step.number for step in outcome.steps] == list(range(1, 31))


# --- one run, one result ----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_same_seed_gives_the_same_bytes(family: str, home: Path) -> None:
    made = set()
    for _ in range(2):
        base = add_tiny_base(family, "nf4", home)
        adapter = attach(base)
        run(base, adapter)
        made.add(sha_of(adapter))
    assert len(made) == 1


def test_another_seed_takes_the_rows_in_another_order(base: Base) -> None:
    made = set()
    for seed in (0, 1):
        adapter = attach(base, f"slot{seed}")
        run(base, adapter, replace(RECIPE, seed=seed, batch_size=1))
        made.add(sha_of(adapter))
        adapter.detach()
    assert len(made) == 2


def test_a_batch_in_parts_trains_as_the_whole(base: Base) -> None:
    states, norms = [], []
    for parts in (1, 2, 4):
        adapter = attach(base)
        # A low rate: Adam divides by the gradient's size and so enlarges what rounding leaves.
        outcome = run(base, adapter, replace(RECIPE, accumulate=parts, learning_rate=1e-3))
        states.append(adapter.state())
        norms.append([step.gradient_norm for step in outcome.steps])
        adapter.detach()
    for state, norm in zip(states[1:], norms[1:], strict=True):
        assert norm == pytest.approx(norms[0], rel=1e-4)
        for name, tensor in state.items():
            assert (tensor - states[0][name]).abs().max() < 1e-5


# --- stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [lambda loss: loss * float("nan"), lambda loss: loss + (loss - loss.detach()).abs().sqrt()],
    ids=["loss", "gradient"],
)
def test_what_is_not_finite_stops_the_run_at_its_last_good_step(
    change: Callable[[Any], Any], base: Base
) -> None:
    adapter, seen = attach(base), [""]
    outcome = run(
        base,
        adapter,
        loss=Altered(change, after=3),
        on_step=lambda _: seen.append(sha_of(adapter)),
    )
    # The third update is what the fourth step finds to be broken.
    assert (outcome.stopped, len(outcome.steps)) == ("diverged", 2)
    assert sha_of(adapter) == seen[2] != seen[3]


def test_a_loss_that_explodes_for_good_stops_the_run_at_its_last_good_step(base: Base) -> None:
    adapter, seen = attach(base), [""]
    outcome = run(
        base,
        adapter,
        replace(RECIPE, steps=20),
        loss=Altered(lambda loss: loss * 100, after=3),
        on_step=lambda _: seen.append(sha_of(adapter)),
    )
    assert len(seen) == 1 + 3 + 4  # the fifth such loss is one too many
    assert (outcome.stopped, len(outcome.steps), outcome.kept) == ("diverged", 2, 2)
    assert sha_of(adapter) == seen[2]


def climbing(calls: int) -> float:
    """By how much the loss of a pass is multiplied: at last it is no number."""
    return 1.0 if calls <= 6 else 1.8 ** (calls - 6) if calls < 11 else float("nan")


def test_a_run_that_climbs_before_it_breaks_is_taken_back_to_before_the_climb(
    base: Base,
) -> None:
    adapter, seen = attach(base), [""]
    loss = Altered(lambda loss: loss)
    loss.change = lambda made: made * climbing(loss.calls)
    # So slow that nothing but the factor changes the loss.
    outcome = run(
        base,
        adapter,
        replace(RECIPE, steps=20, learning_rate=1e-5),
        loss=loss,
        on_step=lambda _: seen.append(sha_of(adapter)),
    )
    # The seventh pass, at 1.8 times the loss before, is still within what rows differ by.
    assert (outcome.stopped, len(outcome.steps), outcome.kept) == ("diverged", 6, 6)
    assert sha_of(adapter) == seen[6]


def test_the_best_on_rows_held_out_is_kept_however_the_batches_were(base: Base) -> None:
    """All batches from the third on are worse than twice the first ones, if not lost."""
    adapter, seen = attach(base), [""]
    loss = Altered(lambda loss: loss)

    def made(value: Any) -> Any:
        worse = torch.is_grad_enabled() and len(seen) > 2
        return value * float("nan") if len(seen) == 6 else value * (6 if worse else 1)

    import torch

    loss.change = made
    outcome = run(
        base, adapter, replace(RECIPE, eval_data="x", eval_every=1, keep="best"), loss=loss,
        eval_examples=examples(base), on_step=lambda _: seen.append(sha_of(adapter)),
    )  # fmt: skip
    assert (outcome.stopped, outcome.kept) == ("diverged", 5)
    assert sha_of(adapter) == seen[5]


def test_a_run_that_ends_while_it_explodes_has_not_finished(base: Base) -> None:
    adapter, seen = attach(base), [""]
    outcome = run(
        base,
        adapter,
        loss=Altered(lambda loss: loss * 100, after=4),
        on_step=lambda _: seen.append(sha_of(adapter)),
    )
    assert (outcome.stopped, outcome.kept) == ("diverged", 3)
    assert sha_of(adapter) == seen[3]


def test_a_rate_may_be_given_for_each_step(base: Base) -> None:
    outcome = run(base, attach(base), rate=lambda number: 1e-4 * 2**number)
    rates = [step.learning_rate for step in outcome.steps]
    assert rates == [1e-4 * 2**number for number in range(RECIPE.steps)]


def test_a_last_update_that_is_not_finite_is_taken_back(base: Base) -> None:
    adapter, seen = attach(base), [""]

    def spoil(step: Step) -> None:
        seen.append(sha_of(adapter))
        if step.number == RECIPE.steps:
            next(iter(adapter.parameters().values())).data[0] = float("inf")

    outcome = run(base, adapter, on_step=spoil)
    assert (outcome.stopped, len(outcome.steps)) == ("diverged", RECIPE.steps - 1)
    assert sha_of(adapter) == seen[-2]


@pytest.mark.parametrize(
    ("signal", "stopped"), [(KeyboardInterrupt, "interrupted"), (Terminated, "terminated")]
)
def test_a_signal_keeps_the_weights_of_the_last_step(
    signal: type[BaseException], stopped: str, base: Base
) -> None:
    adapter, seen = attach(base), [""]

    def stop(step: Step) -> None:
        seen.append(sha_of(adapter))
        if step.number == 3:
            raise signal

    outcome = run(base, adapter, on_step=stop)
    assert (outcome.stopped, len(outcome.steps)) == (stopped, 3)
    assert sha_of(adapter) == seen[-1] != seen[-2]


def test_a_signal_within_an_update_takes_that_update_back(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    adapter, seen, whole = attach(base), [""], torch.optim.AdamW.step

    def half(self: Any, *args: Any) -> None:
        whole(self, *args)
        if len(seen) == 3:
            raise Terminated

    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    outcome = run(base, adapter, on_step=lambda _: seen.append(sha_of(adapter)))
    assert (outcome.stopped, len(outcome.steps)) == ("terminated", 2)
    assert sha_of(adapter) == seen[-1]


def test_a_run_without_a_gradient_is_refused_at_its_first_step(base: Base) -> None:
    with pytest.raises(TrainingError, match="no gradient reaches the adapter"):
        run(base, attach(base), loss=Altered(lambda loss: loss * 0.0))


def test_parameters_that_no_gradient_reaches_are_named(base: Base) -> None:
    adapter, said = attach(base), list[str]()
    run(base, adapter, say=said.append)
    assert said == []
    adapter.detach()
    run(base, WithMore(attach(base)), say=said.append)
    assert said == ["no gradient reaches 2 of 30 parameters, which stay as they are: idle, spare"]


def test_a_run_without_a_gradient_names_what_should_have_one(base: Base) -> None:
    with pytest.raises(TrainingError, match=r"reaches the adapter \(\S+lora_A\S+, .* more\)"):
        run(base, attach(base), loss=Altered(lambda loss: loss * 0.0))


class WithMore:
    """An adapter with two parameters that take no part in any pass."""

    def __init__(self, adapter: AttachedAdapter) -> None:
        import torch

        self.slot, self.config = adapter.slot, adapter.config
        self.activate, self.deactivate = adapter.activate, adapter.deactivate
        self.detach, self.state = adapter.detach, adapter.state
        self._parameters = {
            **adapter.parameters(), "idle": torch.zeros(2), "spare": torch.zeros(2)
        }  # fmt: skip

    def parameters(self) -> Mapping[str, Any]:
        return self._parameters


def test_a_run_that_moves_nothing_is_refused(base: Base) -> None:
    adapter = attach(base)
    shake(adapter)
    with pytest.raises(TrainingError, match="no weight has changed"):
        run(base, adapter, replace(RECIPE, learning_rate=1e-30))


# --- what stays -------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt, RuntimeError])
def test_the_base_is_untouched_however_a_run_ends(
    stop: type[BaseException] | None, base: Base
) -> None:
    before, adapter = base_bytes(base.model), attach(base)

    def end(_: Step) -> None:
        if stop is not None:
            raise stop

    with contextlib.suppress(RuntimeError):
        run(base, adapter, on_step=end)
    assert not any(module.training for module in base.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in base.model.parameters())
    adapter.detach()
    assert base_bytes(base.model) == before


def test_another_adapter_on_the_base_is_neither_trained_nor_heard(base: Base) -> None:
    alone = attach(base)
    run(base, alone)
    expected = sha_of(alone)
    alone.detach()
    other = attach(base, "other")
    shake(other)
    before = sha_of(other)
    adapter = attach(base)
    run(base, adapter)
    assert sha_of(other) == before
    assert sha_of(adapter) == expected
