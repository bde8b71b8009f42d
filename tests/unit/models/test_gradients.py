"""Gradients through a 4-bit base are those of the values its bits stand for, on every CPU.

On a CPU with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first eval-mode forward, and
whoever trains afterwards gets wrong gradients with a mere warning. The twin here is computed in
float64 from the dequantized weights, with LoRA written as `W + scaling * B A`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.recipe import Recipe
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import practice, tiny
from adapterhub.testing.plain import logits_of
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.data import collate
from adapterhub.train.loop import Step, fit

pytestmark = pytest.mark.models

OPTIONS = {"rank": 4, "alpha": 6}
SCALING = 6 / 4


def attached(base: Base) -> Any:
    lora = method_of("lora")
    adapter = lora.attach(base, "one", lora.new_config(base.spec, OPTIONS))
    practice.shake(adapter)
    return adapter


def twin_gradients(family: str, home: Path, state: dict[str, Any], batch: Any) -> dict[str, Any]:
    """Stored name -> gradient of the mean loss, from 4-bit bytes and the definition of LoRA."""
    import torch

    leaves = {name: tensor.double().requires_grad_(True) for name, tensor in state.items()}
    weights = dequantized(add_tiny_base(family, "nf4", home, dense=False).model)
    for name in {name.rpartition(".lora_")[0] for name in leaves}:
        delta = leaves[f"{name}.lora_B.weight"] @ leaves[f"{name}.lora_A.weight"]
        module = name.removeprefix("base_model.model.")
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + SCALING * delta
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")}
    skeleton = tiny.tiny_model(family).double()
    logits = torch.func.functional_call(skeleton, weights, kwargs=inputs).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def dequantized(model: Any) -> dict[str, Any]:
    """Every weight in float64, 4-bit ones by bitsandbytes' own dequantization."""
    import bitsandbytes as bnb

    weights = {name: tensor.detach().double() for name, tensor in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            values = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            weights[f"{name}.weight"] = values.double()
    return weights


def whole_batch(base: Base) -> Any:
    return collate(practice.examples(base), pad=tiny.PAD, device="cpu")


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_gradients_after_an_eval_forward_are_those_of_the_dequantized_weights(
    family: str, dense: bool, home: Path
) -> None:
    base = add_tiny_base(family, "nf4", home, dense=dense)
    adapter = attached(base)
    logits_of(base.model)
    found = practice.gradients(base, adapter)
    expected = twin_gradients(family, home, adapter.state(), whole_batch(base))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() / gradient.norm() < 1e-4, name


@pytest.mark.parametrize("dense", [True, False])
def test_a_run_after_an_eval_forward_starts_from_the_right_gradient(
    dense: bool, home: Path
) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=dense)
    adapter = attached(base)
    logits_of(base.model)
    expected = twin_gradients("llama", home, adapter.state(), whole_batch(base))
    seen: list[Step] = []
    fit(
        Recipe(base="tiny", data="practice", steps=1, batch_size=len(practice.ROWS)),
        base,
        adapter,
        practice.objective(),
        practice.examples(base),
        on_step=seen.append,
    )
    norm = sum(float(gradient.square().sum()) for gradient in expected.values()) ** 0.5
    assert seen[0].gradient_norm == pytest.approx(norm, rel=1e-4)


def plain_layer() -> Any:
    """A 4-bit layer as bitsandbytes makes it."""
    import bitsandbytes as bnb
    import torch

    torch.manual_seed(0)
    layer = bnb.nn.Linear4bit(
        64, 128, bias=False, compute_dtype=torch.float32, quant_type="nf4"
    ).to("cpu")
    return layer.eval()


def repacked(layer: Any) -> bool:
    return bool(getattr(layer.weight.quant_state, "packing_format_for_cpu", False))


def test_where_the_cpu_can_bitsandbytes_repacks_at_the_first_eval_forward() -> None:
    """The trap itself: should this fail, bitsandbytes has changed and so may our guard."""
    import torch

    layer = plain_layer()
    layer.support_avx512bf16_for_cpu = True
    with torch.no_grad():
        layer(torch.ones(1, 64))
    assert repacked(layer)


@pytest.fixture
def repacking_cpu(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bitsandbytes believe that this CPU has AVX512-BF16 whenever it makes a layer."""
    import bitsandbytes.nn.modules as made

    add_tiny_base("llama", "nf4", home)
    monkeypatch.setattr(made, "has_avx512bf16", lambda: True)
    assert plain_layer().support_avx512bf16_for_cpu


@pytest.mark.usefixtures("repacking_cpu")
def test_a_loaded_base_never_repacks(home: Path) -> None:
    import bitsandbytes as bnb

    model = add_tiny_base("llama", "nf4", home, dense=False).model
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(layers) == 14
    logits_of(model)
    assert not any(repacked(layer) for layer in layers)


@pytest.mark.usefixtures("repacking_cpu")
@pytest.mark.parametrize("dense", [True, False])
def test_a_cpu_that_repacks_gives_the_same_gradients(dense: bool, home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=dense)
    adapter = attached(base)
    logits_of(base.model)
    found = practice.gradients(base, adapter)
    expected = twin_gradients("llama", home, adapter.state(), whole_batch(base))
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() / gradient.norm() < 1e-4, name


def test_without_our_guard_this_cpu_computes_wrong_gradients() -> None:
    import bitsandbytes as bnb
    import torch

    if not bnb.functional.has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes does not repack on it")
    layer, x = plain_layer(), torch.ones(4, 64)
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    with torch.no_grad():
        layer(x)
    # Training: the input asks for a gradient, as it does below every adapter but the first.
    x.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # all that torch says about it
        output = layer.train()(x)
        if output.requires_grad:
            output.sum().backward()
    right = weight.sum(dim=0).expand(4, 64)
    assert x.grad is None or (x.grad - right).norm() / right.norm() > 0.05
