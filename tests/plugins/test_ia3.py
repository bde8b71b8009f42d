"""(IA)^3: what plain PEFT makes of it, which rows of fused layers train, and how effects add."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base
from tests.plugins.plain_peft import answers_of, made_by_peft, write_folder

pytestmark = pytest.mark.models

PREFIX = "base_model.model."
# A fused layer, and the first of its rows that makes keys: behind 4 heads of queries, 16 wide.
FIRST_KEY = {
    "phi3": ("model.layers.0.self_attn.qkv_proj", 64),
    "gpt2": ("transformer.h.0.attn.c_attn", 64),
}


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def attach(base: Base, slot: str = "one", *, seed: int | None = 0, **options: Any) -> Any:
    ia3 = method_of("ia3")
    adapter = ia3.attach(base, slot, ia3.new_config(base.spec, options))
    if seed is not None:
        practice.shake(adapter, seed=seed)
    return adapter


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen2", "gpt2"])
def test_plain_peft_answers_alike(family: str, home: Path, tmp_path: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    bare = copy.deepcopy(base.model)
    adapter = attach(base)
    adapter.activate()
    expected = answers_of(bare, write_folder(adapter, tmp_path / "stored"))
    assert apart(plain.logits_of(base.model), expected) < 1e-5


@pytest.mark.parametrize("options", [{"feedforward": False}, {"layers": "1"}])
def test_plain_peft_answers_alike_on_a_part(
    options: Mapping[str, Any], home: Path, tmp_path: Path
) -> None:
    base = add_tiny_base("gpt2", "bf16", home)
    bare = copy.deepcopy(base.model)
    adapter = attach(base, **options)
    adapter.activate()
    expected = answers_of(bare, write_folder(adapter, tmp_path / "stored"))
    assert apart(plain.logits_of(base.model), expected) < 1e-5


@pytest.mark.parametrize("family", ["phi3", "gpt2"])
def test_only_keys_and_values_of_a_fused_layer_train(family: str, home: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    adapter = attach(base, seed=None)
    practice.train(base, adapter)
    module, first = FIRST_KEY[family]
    stored = adapter.state()[f"{PREFIX}{module}.ia3_l"]
    assert bool((stored[:first] == 1).all())
    assert bool((stored[first:] != 1).all())


def test_scaled_queries_of_a_foreign_adapter_are_kept(home: Path) -> None:
    from peft import IA3Config

    base = add_tiny_base("phi3", "bf16", home)
    targets = {"target_modules": ["qkv_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    state, expected = made_by_peft(base, IA3Config(task_type="CAUSAL_LM", **targets))
    adapter = method_of("ia3").attach(base, "foreign", {"peft_type": "IA3", **targets}, state=state)
    adapter.activate()
    assert apart(plain.logits_of(base.model), expected) < 1e-5
    kept = adapter.state()
    assert all(bool((kept[name] == state[name]).all()) for name in state)


def test_every_linear_layer_of_a_foreign_adapter_is_scaled(home: Path) -> None:
    from peft import IA3Config

    base = add_tiny_base("llama", "bf16", home)
    config = IA3Config(
        task_type="CAUSAL_LM", target_modules="all-linear", feedforward_modules=["down_proj"]
    )
    state, expected = made_by_peft(base, config)
    stored = {"target_modules": "all-linear", "feedforward_modules": ["down_proj"]}
    method_of("ia3").attach(base, "foreign", stored, state=state).activate()
    assert apart(plain.logits_of(base.model), expected) < 1e-5


def test_training_lowers_the_loss(home: Path) -> None:
    base = add_tiny_base("phi3", "nf4", home, dense=False)
    losses = [step.loss for step in practice.train(base, attach(base, seed=None), steps=16).steps]
    assert sum(losses[-2:]) < 0.97 * sum(losses[:2])


def test_each_row_of_a_batch_has_its_own_weight(home: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    adapter = attach(base)
    adapter.activate([1.0, -0.5])
    mixed = plain.logits_of(base.model)
    for row, weight in enumerate((1.0, -0.5)):
        adapter.activate(weight)
        assert apart(mixed[row], plain.logits_of(base.model)[row]) < 1e-5


def test_two_feed_each_other_only_on_a_sequential_base(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    one, two = attach(base, "one"), attach(base, "two", seed=1)
    one.activate()
    two.activate()
    added = plain.logits_of(base.model)
    base.sequential = True
    fed = plain.logits_of(base.model)
    one.detach()
    two.detach()
    scales = attach(base, "product", seed=None)
    first, second = one.state(), two.state()
    product = {name: first[name] * second[name] for name in first}
    scales.detach()
    ia3 = method_of("ia3")
    ia3.attach(base, "product", ia3.new_config(base.spec, {}), state=product).activate()
    assert apart(plain.logits_of(base.model), fed) < 1e-5
    assert apart(added, fed) > 1e-4


def test_it_sits_beside_a_lora(home: Path) -> None:
    base = add_tiny_base("phi3", "nf4", home, dense=False)
    before = plain.base_bytes(base.model)
    lora = method_of("lora")
    scales = attach(base)
    scales.activate()
    alone = plain.logits_of(base.model)
    beside = lora.attach(base, "lora", lora.new_config(base.spec, {"rank": 4}))
    assert apart(plain.logits_of(base.model), alone) == 0
    practice.shake(beside)
    beside.activate()
    assert apart(plain.logits_of(base.model), alone) > 1e-4
    scales.detach()
    beside.detach()
    assert plain.base_bytes(base.model) == before


def test_a_bias_is_scaled_with_its_layer_so_patches_ask_for_the_base(home: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    adapter = attach(base)
    ia3 = method_of("ia3")
    with pytest.raises(CapabilityError, match="bias"):
        list(ia3.patches(adapter.config, adapter.state()))
    patches = dict(ia3.patches(adapter.config, adapter.state(), base))
    patch = patches["model.layers.0.self_attn.k_proj"]
    bias = base.sites("linear")["model.layers.0.self_attn.k_proj"].module.bias
    assert bool(((bias + patch.bias) - patch.row_scale * bias).abs().max() < 1e-6)  # type: ignore[union-attr]
    assert patches["model.layers.0.mlp.down_proj"].bias is None  # type: ignore[union-attr]


def test_under_bfloat16_autocast_the_base_keeps_its_dtypes(home: Path) -> None:
    import torch

    base = add_tiny_base("gpt2", "bf16", home)
    adapter = attach(base)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bare = plain.logits_of(base.model).dtype
        adapter.activate()
        assert plain.logits_of(base.model).dtype == bare
    assert all(tensor.dtype == torch.float32 for tensor in adapter.parameters().values())


def test_a_taken_slot_is_refused_and_a_left_one_is_free(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter = attach(base)
    with pytest.raises(UsageError, match="'one' is taken"):
        attach(base)
    adapter.detach()
    attach(base)


@pytest.mark.parametrize(
    ("config", "error", "word"),
    [
        ({"target_modules": ["q_prj"], "feedforward_modules": []}, MismatchError, "q_prj"),
        ({"target_modules": ".*k_proj", "feedforward_modules": []}, CapabilityError, "target_mod"),
        ({"target_modules": ["k_proj"], "feedforward_modules": "x"}, CapabilityError, "pattern"),
        ({"target_modules": [], "feedforward_modules": []}, MismatchError, "no target_modules"),
        ({"target_modules": ["k_proj"], "modules_to_save": ["norm"]}, CapabilityError, "to_save"),
    ],
)
def test_a_config_it_cannot_follow_is_refused(
    config: Mapping[str, Any], error: type[Exception], word: str, home: Path
) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(error, match=word):
        method_of("ia3").attach(base, "one", config)
    assert base.shared == {}


@pytest.mark.parametrize(
    "options", [{"feedforward": 1}, {"layers": "one"}, {"layers": [-1]}, {"rank": 4}]
)
def test_options_that_make_no_sense_are_refused(options: Mapping[str, Any], home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(UsageError, match=next(iter(options))):
        method_of("ia3").new_config(base.spec, options)
