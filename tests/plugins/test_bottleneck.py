"""Bottlenecks: where they stand, what they compute, and how several work together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import MismatchError, UsageError
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

HIDDEN = 64


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def attach(base: Base, slot: str = "one", *, seed: int | None = 0, **options: Any) -> Any:
    bottleneck = method_of("bottleneck")
    adapter = bottleneck.attach(base, slot, bottleneck.new_config(base.spec, options), seed=7)
    if seed is not None:
        practice.shake(adapter, seed=seed)
    return adapter


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


def by_hand(state: Mapping[str, Any], site: str, f: Any, h: Any) -> Any:
    inner = f(h @ state[f"{site}.down.weight"].T + state[f"{site}.down.bias"])
    return inner @ state[f"{site}.up.weight"].T + state[f"{site}.up.bias"]


@pytest.mark.parametrize(
    ("placement", "sublayers"),
    [("pfeiffer", ["mlp"]), ("houlsby", ["self_attn", "mlp"]), ("parallel", ["mlp"])],
)
def test_a_placement_says_which_sublayers_have_one(
    placement: str, sublayers: list[str], home: Path
) -> None:
    state = attach(add_tiny_base("phi3", "bf16", home), placement=placement, reduction=8).state()
    sites = [f"model.layers.{i}.{sublayer}" for i in range(2) for sublayer in sublayers]
    assert list(dict.fromkeys(name.rsplit(".", 2)[0] for name in state)) == sites
    assert state[f"{sites[0]}.down.weight"].shape == (HIDDEN // 8, HIDDEN)
    assert state[f"{sites[0]}.up.weight"].shape == (HIDDEN, HIDDEN // 8)


@pytest.mark.parametrize("nonlinearity", ["relu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("placement", ["pfeiffer", "parallel"])
def test_it_computes_what_the_paper_says(placement: str, nonlinearity: str, home: Path) -> None:
    import torch
    from torch.nn import functional

    base = add_tiny_base("llama", "bf16", home)
    site = base.sites("mlp")["model.layers.1.mlp"]
    x = torch.randn(2, 3, HIDDEN)
    y = site.module(x)
    adapter = attach(base, placement=placement, nonlinearity=nonlinearity)
    adapter.activate(0.5)
    f = getattr(functional, nonlinearity)
    h, scaling = (x, 4.0) if placement == "parallel" else (y, 1.0)
    expected = y + 0.5 * scaling * by_hand(adapter.state(), site.name, f, h)
    assert apart(site.module(x), expected) < 1e-6


def test_a_bottleneck_is_at_least_one_wide(home: Path) -> None:
    state = attach(add_tiny_base("gpt2", "bf16", home), reduction=1000).state()
    assert state["transformer.h.0.mlp.down.weight"].shape == (1, HIDDEN)


def test_only_the_chosen_blocks_have_one(home: Path) -> None:
    names = attach(add_tiny_base("llama", "bf16", home), layers=[1]).parameters()
    assert all(name.startswith("model.layers.1.") for name in names)


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_training_on_four_bits_lowers_the_loss(placement: str, home: Path) -> None:
    base = add_tiny_base("phi3", "nf4", home, dense=False)
    adapter = attach(base, seed=None, placement=placement, dropout=0.1)
    losses = [step.loss for step in practice.train(base, adapter, steps=16).steps]
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])


def test_seeds_make_different_ones_and_all_start_as_nothing(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    bottleneck = method_of("bottleneck")
    config = bottleneck.new_config(base.spec, {})
    one, two = (bottleneck.attach(base, str(s), config, seed=s).state() for s in (1, 2))
    downs = [name for name in one if name.endswith("down.weight")]
    assert all(bool((one[name] != two[name]).any()) for name in downs)
    assert not any(bool(one[name].any()) for name in one if ".up." in name)


def test_dropout_is_there_in_training_only(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    attach(base, dropout=0.5).activate()
    assert apart(plain.logits_of(base.model), plain.logits_of(base.model)) == 0
    base.model.train()
    assert apart(plain.logits_of(base.model), plain.logits_of(base.model)) > 1e-3


def test_each_row_of_a_batch_has_its_own_weight(home: Path) -> None:
    base = add_tiny_base("gpt2", "nf4", home, dense=False)
    adapter = attach(base, placement="houlsby")
    adapter.activate([1.0, -0.5])
    mixed = plain.logits_of(base.model)
    for row, weight in enumerate((1.0, -0.5)):
        adapter.activate(weight)
        assert apart(mixed[row], plain.logits_of(base.model)[row]) < 1e-5


def test_two_at_one_place_add_up(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    site = base.sites("mlp")["model.layers.0.mlp"]
    x = torch.randn(1, 3, HIDDEN)
    y = site.module(x)
    one, two = attach(base, "one"), attach(base, "two", seed=1)
    one.activate()
    two.activate()
    both = site.module(x)
    parts = [by_hand(each.state(), site.name, torch.relu, y) for each in (one, two)]
    assert apart(both, y + sum(parts)) < 1e-6
    one.activate()
    assert apart(site.module(x), both) < 1e-6


def test_on_a_sequential_base_the_second_reads_what_the_first_made(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    base.sequential = True
    site = base.sites("mlp")["model.layers.0.mlp"]
    x = torch.randn(1, 3, HIDDEN)
    y = site.module(x)
    one, two = attach(base, "one"), attach(base, "two", seed=1)
    two.activate()
    one.activate()
    for each in (two, one):
        y = y + by_hand(each.state(), site.name, torch.relu, y)
    assert apart(site.module(x), y) < 1e-6


def test_it_sits_beside_a_lora(home: Path) -> None:
    base = add_tiny_base("phi3", "nf4", home, dense=False)
    before = plain.base_bytes(base.model)
    lora = method_of("lora")
    block = attach(base, placement="houlsby")
    block.activate()
    alone = plain.logits_of(base.model)
    beside = lora.attach(base, "lora", lora.new_config(base.spec, {"rank": 4}))
    practice.shake(beside)
    beside.activate()
    assert apart(plain.logits_of(base.model), alone) > 1e-4
    beside.detach()
    assert apart(plain.logits_of(base.model), alone) == 0
    block.detach()
    assert plain.base_bytes(base.model) == before


def test_on_a_bfloat16_base_it_computes_in_float32_and_answers_in_bfloat16(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    adapter = attach(base, placement="parallel")
    base.model.to(torch.bfloat16)
    adapter.activate()
    assert plain.logits_of(base.model).dtype == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in adapter.parameters().values())


def test_its_patch_is_the_module_that_it_is(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    adapter = attach(base, placement="parallel", nonlinearity="gelu", scaling=3)
    patches: dict[str, Any] = dict(method_of("bottleneck").patches(adapter.config, adapter.state()))
    assert patches.keys() == base.sites("mlp").keys()
    h = torch.randn(2, HIDDEN)
    for site, patch in patches.items():
        assert patch.reads == "input"
        expected = 3 * by_hand(adapter.state(), site, torch.nn.functional.gelu, h)
        assert apart(patch.module(h), expected) < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"placement": "before"},
        {"reduction": 0},
        {"nonlinearity": "sine"},
        {"scaling": 2.0},
        {"scaling": "big", "placement": "parallel"},
        {"dropout": 1.0},
        {"layers": "all"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: Mapping[str, Any], home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(UsageError, match=next(iter(options))):
        method_of("bottleneck").new_config(base.spec, options)


def test_a_block_that_the_base_lacks_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="no block 2"):
        attach(add_tiny_base("llama", "bf16", home), layers=[0, 2])


def test_a_tensor_that_is_no_part_of_one_is_refused() -> None:
    with pytest.raises(MismatchError, match="gate"):
        list(method_of("bottleneck").patches({}, {"model.layers.0.mlp.gate": 0}))
