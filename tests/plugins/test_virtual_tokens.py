"""Virtual tokens are what a person would put there by hand, however the base is run."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.errors import CapabilityError
from adapterhub.models.loader import Base
from adapterhub.testing import plain
from tests.virtual_tokens import (
    METHODS,
    TOKENS,
    Make,
    apart,
    attach,
    bases,
    by_hand,
    counted,
    generate,
    logits,
    padded,
    step_by_step,
)

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return bases(tmp_path_factory.mktemp("home"))


@pytest.fixture(params=["llama", "phi3", "mistral", "qwen2", "gpt2"])
def base(make: Make, request: pytest.FixtureRequest) -> Base:
    return make(request.param, "bf16")


@pytest.fixture
def llama(make: Make) -> Base:
    return make("llama", "bf16")


# --- alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_prompt_is_its_embeddings_before_the_input(base: Base, attention: str) -> None:
    base.model.set_attn_implementation(attention)
    adapter = attach(base, "prompt_tuning")
    ids, mask, positions = padded()
    expected = by_hand(base, adapter.state()["prompt_embeddings"], ids, mask, positions)
    adapter.activate()
    found = logits(base, input_ids=ids, attention_mask=mask, position_ids=positions)
    assert apart(found[mask.bool()], expected[mask.bool()]) < 1e-5


def test_positions_that_are_not_given_begin_behind_the_virtual_tokens(base: Base) -> None:
    adapter = attach(base, "prompt_tuning")
    ids, _, _ = padded()
    mask, positions = counted(ids.new_ones(ids.shape))
    expected = by_hand(base, adapter.state()["prompt_embeddings"], ids, mask, positions)
    adapter.activate()
    assert apart(logits(base, input_ids=ids), expected) < 1e-5
    embedded = base.model.get_input_embeddings()(ids)
    assert apart(logits(base, inputs_embeds=embedded), expected) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_generating_with_a_cache_is_looking_at_everything_each_time(
    base: Base, method: str
) -> None:
    attach(base, method).activate()
    ids, mask, _ = padded()
    expected = step_by_step(base, ids, mask, steps=6)
    for cache in ("dynamic", "static"):
        assert generate(base, ids, mask, cache_implementation=cache).equal(expected), cache


def test_a_generation_computes_the_virtual_tokens_once(llama: Base) -> None:
    attach(llama, "prompt_tuning").activate()
    ids, mask, _ = padded()
    lengths: list[int] = []
    [first, *_] = llama.sites("attention").values()
    hook = first.module.register_forward_hook(
        lambda module, args, kwargs, output: lengths.append(output[0].shape[1]), with_kwargs=True
    )
    generate(llama, ids, mask)
    hook.remove()
    assert lengths == [TOKENS, ids.shape[1], *([1] * 5)]


def test_another_generation_after_a_change_sees_the_change(llama: Base) -> None:
    import torch

    adapter = attach(llama, "prompt_tuning")
    adapter.activate()
    ids, mask, _ = padded()
    generate(llama, ids, mask)
    with torch.no_grad():
        adapter.parameters()["prompt_embeddings"].neg_()
    assert generate(llama, ids, mask).equal(step_by_step(llama, ids, mask, steps=6))


def test_beams_and_several_answers_share_the_virtual_tokens(llama: Base) -> None:
    attach(llama, "prefix_tuning").activate()
    ids, mask, _ = padded()
    both = generate(llama, ids, mask, num_beams=3, num_return_sequences=2)
    [alone] = generate(llama, ids[1:], mask[1:], num_beams=3)
    assert both.shape[0] == 4
    assert both[2].equal(alone)


@pytest.mark.parametrize("method", METHODS)
def test_each_of_the_packed_rows_begins_behind_the_virtual_tokens(base: Base, method: str) -> None:
    import torch

    attach(base, method).activate()
    ids, _, _ = padded()
    one, two = ids[:1, :7], ids[1:, :5]
    positions = torch.cat((torch.arange(7), torch.arange(5)))[None]
    packed = logits(
        base, input_ids=torch.cat((one, two), dim=1), position_ids=positions, use_cache=False
    )
    assert apart(packed[:, :7], logits(base, input_ids=one)) < 1e-5
    assert apart(packed[:, 7:], logits(base, input_ids=two)) < 1e-5


def test_only_the_logits_that_are_asked_for_come_back(base: Base) -> None:
    import torch

    attach(base, "prefix_tuning").activate()
    ids, mask, positions = padded()
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    whole = logits(base, **batch)
    assert apart(logits(base, **batch, logits_to_keep=2), whole[:, -2:]) < 1e-5
    columns = torch.tensor([5, 9])
    assert apart(logits(base, **batch, logits_to_keep=columns), whole[:, columns]) < 1e-5


def test_a_sliding_window_never_slides_past_the_virtual_tokens(make: Make) -> None:
    """What they say holds to the end of the conversation, as it does in full attention."""
    base = make("mistral", "bf16")
    base.model.config.sliding_window = 4
    adapter = attach(base, "prefix_tuning")
    ids, mask, _ = padded()
    [*_, last] = base.sites("attention").values()
    keys: list[int] = []
    base.model.set_attn_implementation("eager")
    adapter.activate()
    hook = last.module.register_forward_hook(
        lambda module, args, kwargs, output: keys.append(int((output[1][0, 0, -1] > 0).sum())),
        with_kwargs=True,
    )
    logits(base, input_ids=ids)
    hook.remove()
    assert keys == [TOKENS + 4]
    assert generate(base, ids, mask).equal(step_by_step(base, ids, mask, steps=6))


def test_attention_that_cannot_be_reached_is_refused(llama: Base) -> None:
    adapter = attach(llama, "prefix_tuning")
    llama.model.config._attn_implementation = "flex_attention"
    with pytest.raises(CapabilityError, match="flex_attention"):
        adapter.activate()


@pytest.mark.parametrize("weight", [0.5, 0.0, -1.0, (1.0, 1.0)])
def test_half_a_prompt_is_refused(llama: Base, weight: Any) -> None:
    with pytest.raises(CapabilityError, match="weight"):
        attach(llama, "p_tuning").activate(weight)


# --- beside others --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["bf16", "nf4"])
@pytest.mark.parametrize("method", METHODS)
def test_beside_a_lora_both_have_their_say_and_each_alone_its_own(
    make: Make, method: str, scheme: str
) -> None:
    base = make("phi3", scheme)
    lora = attach(base, "lora", "low")
    lora.activate()
    only_lora = plain.logits_of(base.model)
    lora.deactivate()
    prompt = attach(base, method, "virtual")
    prompt.activate()
    only_prompt = plain.logits_of(base.model)
    lora.activate()
    both = plain.logits_of(base.model)
    assert apart(both, only_lora) > 1e-3
    assert apart(both, only_prompt) > 1e-3
    lora.deactivate()
    assert plain.logits_of(base.model).equal(only_prompt)
    lora.activate()
    prompt.detach()
    assert plain.logits_of(base.model).equal(only_lora)


def test_two_prompts_are_one_long_prompt(base: Base) -> None:
    import torch

    one, two = attach(base, "prompt_tuning", "one"), attach(base, "p_tuning", "two")
    ids, mask, positions = padded()
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    rows = [adapter.state()["prompt_embeddings"] for adapter in (one, two)]
    expected = by_hand(base, torch.cat(rows), ids, mask, positions)
    turned = by_hand(base, torch.cat(rows[::-1]), ids, mask, positions)
    one.activate()
    two.activate()
    assert apart(logits(base, **batch)[mask.bool()], expected[mask.bool()]) < 1e-5
    assert generate(base, ids, mask).equal(step_by_step(base, ids, mask, steps=6))
    one.activate()
    assert apart(logits(base, **batch)[mask.bool()], turned[mask.bool()]) < 1e-5


def test_a_prompt_behind_a_prefix_sees_it(llama: Base) -> None:
    prefix = attach(llama, "prefix_tuning", "one")
    prompt = attach(llama, "prompt_tuning", "two")
    ids, mask, positions = padded()
    prefix.activate()
    expected = by_hand(llama, prompt.state()["prompt_embeddings"], ids, mask, positions)
    prompt.activate()
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    assert apart(logits(llama, **batch)[mask.bool()], expected[mask.bool()]) < 1e-5
