"""The options of virtual tokens become what peft stores, and nonsense is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdapterhubError, CapabilityError, MismatchError, UsageError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Grouped queries: 4 heads of 16, 2 of them with keys of their own."""
    home: Path = tmp_path_factory.mktemp("home")
    return add_tiny_base("llama", "bf16", home)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("prompt_tuning", {}, {"num_virtual_tokens": 16, "token_dim": 64}),
        ("prompt_tuning", {}, {"peft_type": "PROMPT_TUNING", "num_attention_heads": 4}),
        ("prompt_tuning", {"text": "ab"}, {"prompt_tuning_init": "RANDOM", "num_layers": 2}),
        ("prefix_tuning", {}, {"peft_type": "PREFIX_TUNING", "token_dim": 32}),
        ("prefix_tuning", {}, {"num_attention_heads": 2, "prefix_projection": False}),
        ("prefix_tuning", {"projection": True}, {"encoder_hidden_size": 512}),
        ("p_tuning", {}, {"peft_type": "P_TUNING", "encoder_hidden_size": 64}),
        ("p_tuning", {"hidden": 9}, {"encoder_hidden_size": 9, "num_transformer_submodules": 1}),
    ],
)
def test_what_is_stored_has_the_sizes_of_its_base(
    base: Base, method: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    adapter = attach(base, method, options)
    stored = dict(adapter.config)
    adapter.detach()
    assert {name: stored[name] for name in expected} == expected
    assert "prompt_tuning_init_text" not in stored


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("prompt_tuning", {"tokens": 0}),
        ("prompt_tuning", {"tokens": 512}),  # the whole context
        ("prompt_tuning", {"tokens": True}),
        ("prompt_tuning", {"init": "zero"}),
        ("prompt_tuning", {"init": "text"}),
        ("prompt_tuning", {"text": " "}),
        ("prompt_tuning", {"text": 7}),
        ("prompt_tuning", {"init": "random", "text": "ab"}),
        ("prefix_tuning", {"hidden": 8}),
        ("prefix_tuning", {"projection": True, "text": "ab"}),
        ("prefix_tuning", {"projection": 1}),
        ("p_tuning", {"hidden": 0}),
        ("p_tuning", {"text": "ab"}),
    ],
)
def test_options_that_make_no_sense_are_refused(
    base: Base, method: str, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as refusal:
        method_of(method).new_config(base.spec, options)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"token_dim": 128}, MismatchError),
        ({"num_layers": 3}, MismatchError),
        ({"num_transformer_submodules": 2}, MismatchError),
        ({"num_virtual_tokens": None}, MismatchError),
        ({"peft_type": "P_TUNING"}, MismatchError),
        ({"of_tomorrow": 1}, MismatchError),
        ({"modules_to_save": ["lm_head"]}, CapabilityError),
    ],
)
def test_a_config_for_something_else_is_refused(
    base: Base, change: dict[str, Any], error: type[AdapterhubError]
) -> None:
    adapter = attach(base, "prompt_tuning", {})
    config, state = {**adapter.config, **change}, adapter.state()
    adapter.detach()
    with pytest.raises(error):
        method_of("prompt_tuning").attach(base, "one", config, state=state)


@pytest.mark.parametrize(("tokens", "spelt"), [(3, "abc"), (7, "abcdeab")])
def test_a_prompt_starts_as_its_text_repeated_or_cut(base: Base, tokens: int, spelt: str) -> None:
    import torch

    adapter = attach(base, "prompt_tuning", {"tokens": tokens, "text": "abcde"})
    found = adapter.state()["prompt_embeddings"]
    adapter.detach()
    ids = base.tokenizer(spelt, add_special_tokens=False)["input_ids"]
    assert torch.equal(found, base.model.get_input_embeddings().weight[ids].detach())


def test_a_random_start_is_of_tokens_that_the_base_knows(base: Base) -> None:
    adapter = attach(base, "prompt_tuning", {"tokens": 64})
    rows = adapter.state()["prompt_embeddings"]
    adapter.detach()
    table = base.model.get_input_embeddings().weight.detach()
    ids = {int((table == row).all(dim=1).nonzero()[0]) for row in rows}
    assert len(ids) > 30
    assert not ids & set(base.tokenizer.all_special_ids)


def test_a_prefix_starts_as_the_keys_and_values_of_a_text(base: Base) -> None:
    """So that a fresh one is the text itself, before the input."""
    import torch

    adapter = attach(base, "prefix_tuning", {"tokens": 3, "text": "abc"})
    ids = torch.tensor([base.tokenizer("abcde", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        expected = base.model(input_ids=ids).logits[:, 3:]
        adapter.activate()
        found = base.model(input_ids=ids[:, 3:]).logits
    adapter.detach()
    assert torch.allclose(found, expected, atol=1e-4)


def attach(base: Base, method: str, options: dict[str, Any]) -> Any:
    found = method_of(method)
    return found.attach(base, "one", found.new_config(base.spec, options))
