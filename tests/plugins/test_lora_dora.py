"""DoRA is what its paper and peft say, and leaves to the base what is the base's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.patch import Affine
from adapterhub.errors import CapabilityError, FormatError, MismatchError, UsageError
from adapterhub.models.loader import Base
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapterhub_plugins.peft.lora import AttachedLora, Lora  # noqa: E402

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # A tiny base lies in a folder of another name than its source.
    pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path:UserWarning"),
]
OPTIONS = {"rank": 4, "dora": True}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def shaken(
    base: Base, slot: str = "one", *, seed: int = 0, options: Mapping[str, Any] = OPTIONS
) -> AttachedLora:
    adapter = Lora().attach(base, slot, Lora().new_config(base.spec, options), seed=seed)
    practice.shake(adapter, seed=seed)
    return adapter


def described(adapter: AttachedLora, base: Base) -> dict[str, Affine]:
    found = Lora().patches(adapter.config, adapter.state(), base)
    return {name: patch for name, patch in found if isinstance(patch, Affine)}


def ids() -> Any:
    return torch.randint(8, 200, (2, 9), generator=torch.Generator().manual_seed(3))


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


def pefts_own(base: Base, config: dict[str, Any], state: dict[str, Any]) -> Any:
    """The same adapter on a copy of the bare base, by nobody but peft, in float64."""
    model = peft.get_peft_model(copy.deepcopy(base.model), peft.LoraConfig(**config)).double()
    peft.set_peft_model_state_dict(model, {k: v.double() for k, v in state.items()})
    return model


def answer_and_gradients(model: Any) -> tuple[Any, list[Any]]:
    """Logits, and the gradient of a fixed function of them for each part of the adapter."""
    parts = [p for n, p in model.named_parameters() if ".lora_" in n]
    for part in parts:
        part.requires_grad_(True)
    torch.manual_seed(11)  # for dropout
    logits = model(input_ids=ids(), use_cache=False).logits
    logits.square().mean().backward()
    return logits.detach(), [part.grad for part in parts]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dropout", [None, 0.0, 0.4], ids=["eval", "train", "dropout"])
def test_values_and_gradients_are_pefts_own_in_float64(
    home: Path, family: str, dropout: float | None
) -> None:
    base = add_tiny_base(family, "bf16", home)
    config = Lora().new_config(base.spec, {**OPTIONS, "dropout": dropout or 0.0, "rslora": True})
    bare = copy.copy(base)
    bare.model = copy.deepcopy(base.model)
    adapter = Lora().attach(base, "default", config)
    practice.shake(adapter)
    theirs = pefts_own(bare, config, adapter.state())
    adapter.activate()
    base.model.double()
    for model in (base.model, theirs):
        model.train(dropout is not None)
    logits, gradients = answer_and_gradients(base.model)
    their_logits, their_gradients = answer_and_gradients(theirs)
    assert apart(logits, their_logits) < 1e-12
    assert len(gradients) == 3 * len(base.sites("linear"))
    for ours, other in zip(gradients, their_gradients, strict=True):
        assert apart(ours, other) < 1e-9


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")], ids=str)
def test_two_on_one_layer_add_up_in_any_order(home: Path, order: tuple[str, str]) -> None:
    base = add_tiny_base("phi3", "bf16", home)
    expected = copy.deepcopy(base.model).double()
    adapters = {slot: shaken(base, slot, seed=seed) for seed, slot in enumerate(("one", "two"))}
    for adapter in adapters.values():
        for name, patch in described(adapter, base).items():
            weight = base.sites("linear")[name].weight().double()
            delta = patch.scaling * patch.B.double() @ patch.A.double()
            rescaled = patch.row_scale[:, None] * (weight + delta)
            expected.get_submodule(name).weight.data += rescaled - weight
    for slot in order:
        adapters[slot].activate()
    assert apart(plain.logits_of(base.model), plain.logits_of(expected)) < 1e-5


def test_what_another_method_adds_to_the_layer_is_not_rescaled(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    name = "model.layers.0.self_attn.q_proj"
    adapter = shaken(base, options={**OPTIONS, "targets": "q_proj"})
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    layer = base.model.get_submodule(name)
    bare = layer(x)
    adapter.activate()
    dora = layer(x) - bare
    handle = base.sites("linear")[name].add_to_output(lambda _, y: 3 * y)
    torch.testing.assert_close(layer(x), bare + dora + 3 * bare)
    base.sequential = True
    torch.testing.assert_close(layer(x) - 4 * bare, dora_on(adapter, base, name, x, 4 * bare))
    handle.remove()


def dora_on(adapter: AttachedLora, base: Base, name: str, x: Any, y: Any) -> Any:
    """What DoRA adds where it is given y in the place of W x."""
    patch = described(adapter, base)[name]
    gain = patch.row_scale.float()
    return (gain - 1) * y + gain * patch.scaling * (x @ patch.A.T @ patch.B.T)


@pytest.mark.parametrize("weight", [0.5, -1.0, [1.0, 1.0]], ids=str)
def test_a_weight_that_means_nothing_is_refused(home: Path, weight: Any) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter = shaken(base)
    before = plain.logits_of(base.model)
    with pytest.raises(CapabilityError, match="rescales"):
        adapter.activate(weight)
    assert torch.equal(plain.logits_of(base.model), before)


@pytest.mark.parametrize("scheme", ["bf16", "nf4"])
def test_a_fresh_one_is_nothing_on_a_bfloat16_base_too(home: Path, scheme: str) -> None:
    base = add_tiny_base("llama", scheme, home, dense=False)
    for parameter in base.model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
    before = plain.logits_of(base.model)
    adapter = Lora().attach(base, "one", Lora().new_config(base.spec, OPTIONS))
    assert {tensor.dtype for tensor in adapter.parameters().values()} == {torch.float32}
    adapter.activate()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = plain.logits_of(base.model)
        adapter.deactivate()
        assert apart(inside.float(), plain.logits_of(base.model).float()) < 1e-6
    adapter.activate()
    assert torch.equal(plain.logits_of(base.model), before)


def test_a_magnitude_is_read_under_both_names_that_peft_has_used(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter = shaken(base)
    state, config = adapter.state(), adapter.config
    adapter.detach()
    old = {n + ".weight" * n.endswith("magnitude_vector"): t for n, t in state.items()}
    assert old.keys() != state.keys()
    again = Lora().attach(base, "one", config, state=old)
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state().items())
    one, other = (dict(Lora().patches(config, stored, base)) for stored in (old, state))
    assert one.keys() == other.keys()


def test_a_description_needs_the_base_and_a_magnitude_that_fits_it(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter = shaken(base)
    state, config = adapter.state(), adapter.config
    with pytest.raises(CapabilityError, match="DoRA"):
        list(Lora().patches(config, state))
    name = next(name for name in state if "magnitude" in name)
    with pytest.raises(MismatchError, match="magnitudes"):
        list(Lora().patches(config, {**state, name: torch.ones(3)}, base))
    del state[name]
    with pytest.raises(FormatError, match="has no lora_magnitude_vector"):
        list(Lora().patches(config, state, base))


def test_the_head_is_refused_and_the_base_left_alone(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    before = plain.base_bytes(base.model)
    with pytest.raises(CapabilityError, match="lm_head"):
        shaken(base, options={**OPTIONS, "targets": "q_proj,lm_head"})
    assert plain.base_bytes(base.model) == before


def test_with_pissa_it_is_refused(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(UsageError, match="dora would rescale"):
        Lora().new_config(base.spec, {**OPTIONS, "init": "pissa"})
