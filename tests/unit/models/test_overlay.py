"""Forward passes see changed parameters; the base's own stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import NotFoundError
from adapterhub.models.loader import Base
from adapterhub.models.quiet import quiet
from adapterhub.testing import plain
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def llama(home: Path) -> Base:
    return add_tiny_base("llama", "bf16", home)


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen2", "gpt2"])
def test_every_parameter_can_be_changed_and_comes_back(family: str, home: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    bare = plain.logits_of(base.model)
    for name, parameter in base.parameters().items():
        handle = base.add_to_parameter(name, lambda: 0.1)
        changed = plain.logits_of(base.model)
        handle.remove()
        assert apart(plain.logits_of(base.model), bare) == 0, name
        own = parameter.detach().clone()
        parameter.data += 0.1
        assert apart(plain.logits_of(base.model), changed) == 0, name
        assert apart(bare, changed) > 0, name
        parameter.data.copy_(own)


def test_the_base_s_own_parameters_stay_as_they_are(home: Path) -> None:
    base = llama(home)
    before = plain.base_bytes(base.model)
    handles = [base.add_to_parameter(name, lambda: 0.1) for name in base.parameters()]
    plain.logits_of(base.model)
    assert plain.base_bytes(base.model) == before
    for handle in handles:
        handle.remove()
    assert plain.base_bytes(base.model) == before


def test_a_tied_parameter_is_named_once_and_changed_in_both_places(home: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    assert "lm_head.weight" not in base.parameters()
    head = base.model.get_output_embeddings()
    hidden = base.parameters()["model.embed_tokens.weight"][:3]
    own = head(hidden)
    base.add_to_parameter(
        "model.embed_tokens.weight", lambda: base.parameters()["model.embed_tokens.weight"]
    )
    assert apart(head(hidden), 2 * own) < 1e-6


def test_changes_add_up_and_the_gradient_reaches_them_alone(home: Path) -> None:
    import torch

    base = llama(home)
    own = base.parameters()[NORM]
    first, second = (torch.zeros_like(own, requires_grad=True) for _ in range(2))
    base.add_to_parameter(NORM, lambda: first)
    base.add_to_parameter(NORM, lambda: 2 * second)
    base.model(input_ids=torch.tensor([[9, 10, 11]])).logits.sum().backward()
    assert own.grad is None
    assert first.grad is not None
    assert second.grad is not None
    assert apart(second.grad, 2 * first.grad) < 1e-6


def test_a_failing_forward_puts_the_parameter_back(home: Path) -> None:
    base = llama(home)
    before = plain.base_bytes(base.model)
    handle = base.add_to_parameter(NORM, lambda: 1.0)
    with pytest.raises((TypeError, AttributeError)):
        base.model.get_submodule(NORM.removesuffix(".weight"))(None)
    handle.remove()
    assert plain.base_bytes(base.model) == before


def test_checkpointing_recomputes_with_the_same_values(home: Path) -> None:
    import torch

    base = llama(home)
    change = torch.full_like(base.parameters()[NORM], 0.1, requires_grad=True)
    base.add_to_parameter(NORM, lambda: change)
    gradients = []
    base.model.train()
    for checkpointing in (False, True):
        if checkpointing:
            with quiet():
                base.model.gradient_checkpointing_enable({"use_reentrant": False})
        base.model(input_ids=torch.tensor([[9, 10, 11]]), use_cache=False).logits.sum().backward()
        gradients.append(change.grad)
        change.grad = None
    assert apart(gradients[1], gradients[0]) < 1e-6


def test_a_name_that_the_base_lacks_is_refused(home: Path) -> None:
    with pytest.raises(NotFoundError, match="no parameter"):
        llama(home).add_to_parameter("model.no_such.weight", lambda: 0)
