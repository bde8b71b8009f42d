"""Full fine-tuning: the stored difference rebuilds the tuned weights, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import CapabilityError, UsageError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

FAMILIES = ("llama", "phi3", "qwen2", "gpt2")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def attach(base: Base, slot: str = "one", *, state: Any = None, **options: Any) -> Any:
    full = method_of("full")
    return full.attach(base, slot, full.new_config(base.spec, options), state=state)


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


def rebuilt(base: Base, state: Any) -> dict[str, Any]:
    return {name: p.detach().float() + state[name].float() for name, p in base.parameters().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_base_and_stored_difference_rebuild_the_tuned_weights_bit_for_bit(
    family: str, home: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    base = add_tiny_base(family, "bf16", home)
    adapter = attach(base)
    practice.train(base, adapter)
    tuned = {n: base.parameters()[n] + d.detach() for n, d in adapter.parameters().items()}
    expected = plain.logits_of(base.model)
    save_file(adapter.state(), tmp_path / "difference.safetensors")
    adapter.detach()

    stored = load_file(tmp_path / "difference.safetensors")
    again = rebuilt(base, stored)
    assert tuned.keys() == again.keys()
    assert all(torch.equal(tuned[name], again[name]) for name in tuned)
    with torch.no_grad():
        for name, parameter in base.parameters().items():
            parameter.copy_(again[name])
    assert apart(plain.logits_of(base.model), expected) == 0


def test_a_difference_in_bfloat16_would_not(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    adapter = attach(base)
    practice.train(base, adapter)
    state = adapter.state()
    exact = rebuilt(base, state)
    rounded = rebuilt(base, {name: tensor.bfloat16() for name, tensor in state.items()})
    assert not any(torch.equal(exact[name], rounded[name]) for name in exact)


def test_every_weight_trains_and_a_shared_one_once(home: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    adapter = attach(base)
    assert list(adapter.parameters()) == [name for name, _ in base.model.named_parameters()]
    assert "lm_head.weight" not in adapter.parameters()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_alone_can_train(family: str, home: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    names = set(attach(base, parts="layers").parameters())
    container = "transformer.h." if family == "gpt2" else "model.layers."
    assert names == {name for name in base.parameters() if name.startswith(container)}


def test_training_lowers_the_loss(home: Path) -> None:
    base = add_tiny_base("phi3", "bf16", home)
    losses = [step.loss for step in practice.train(base, attach(base), steps=12).steps]
    assert sum(losses[-2:]) < 0.5 * sum(losses[:2])


def test_it_sits_beside_a_lora(home: Path) -> None:
    base = add_tiny_base("gpt2", "bf16", home)
    before = plain.base_bytes(base.model)
    lora = method_of("lora")
    adapter = attach(base)
    practice.shake(adapter, size=0.01)
    adapter.activate()
    alone = plain.logits_of(base.model)
    beside = lora.attach(base, "lora", lora.new_config(base.spec, {"rank": 4}))
    practice.shake(beside)
    beside.activate()
    assert apart(plain.logits_of(base.model), alone) > 1e-4
    beside.deactivate()
    assert apart(plain.logits_of(base.model), alone) < 1e-6
    adapter.detach()
    beside.detach()
    assert plain.base_bytes(base.model) == before


def test_beside_scales_each_changes_what_the_untouched_base_computes(home: Path) -> None:
    """Otherwise the scale would apply to the difference as well, and order would mean something."""
    import torch

    base = add_tiny_base("llama", "bf16", home)
    ia3 = method_of("ia3")
    scales = ia3.attach(base, "scales", ia3.new_config(base.spec, {"feedforward": False}))
    adapter = attach(base, parts="layers")
    practice.shake(scales)
    practice.shake(adapter)
    name = "model.layers.0.self_attn.k_proj"
    site = base.sites("linear")[name]
    x = torch.randn(1, 3, site.shape[1])
    scale = scales.state()[f"base_model.model.{name}.ia3_l"].flatten()
    own, difference = site.weight(), adapter.state()[f"{name}.weight"]
    scales.activate()
    adapter.activate()
    expected = x @ (scale[:, None] * own + difference).T
    assert apart(site.module(x), expected) < 1e-5


def test_a_quantized_base_is_refused_before_and_when_attaching(home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home)
    full = method_of("full")
    with pytest.raises(CapabilityError, match="nf4"):
        full.new_config(base.spec, {})
    with pytest.raises(CapabilityError, match="nf4"):
        full.attach(base, "one", {"parts": "all"})


def test_a_row_has_no_weights_of_its_own(home: Path) -> None:
    with pytest.raises(CapabilityError, match="row"):
        attach(add_tiny_base("llama", "bf16", home)).activate([1.0, 0.0])


def test_parts_that_do_not_exist_are_refused(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(UsageError, match="parts"):
        method_of("full").new_config(base.spec, {"parts": "head"})
