"""Where LoRA's factors start: the base stays as it is, and what is stored is plain LoRA."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub.models.loader import Base
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapterhub_plugins.peft.lora import AttachedLora, Lora  # noqa: E402
from adapterhub_plugins.peft.starts import orthogonal, principal  # noqa: E402

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # A tiny base lies in a folder of another name than its source.
    pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path:UserWarning"),
]
PISSA: dict[str, Any] = {"rank": 4, "init": "pissa"}
VARIED = [
    {},
    {"rslora": True, "alpha": 5},
    {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"down_proj": 3.5}, "rslora": True},
    {"layers": "1", "targets": "attention"},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def attached(base: Base, options: dict[str, Any], slot: str = "one") -> AttachedLora:
    return Lora().attach(base, slot, Lora().new_config(base.spec, options))


def matrix(*shape: int, rank: int) -> Any:
    """Singular values 1, 1/2, 1/4, ... and then nothing."""
    make = torch.Generator().manual_seed(5)
    U, V = (torch.linalg.qr(torch.randn(n, rank, generator=make))[0] for n in shape)
    return U @ torch.diag(0.5 ** torch.arange(rank)) @ V.T


@pytest.mark.parametrize("shape", [(48, 32), (1200, 1100)], ids=["exact", "randomized"])
def test_a_principal_start_is_the_best_approximation_of_its_rank(shape: tuple[int, int]) -> None:
    weight = matrix(*shape, rank=12)
    A, B = principal(weight, rank=4, scaling=2.0)
    left = torch.linalg.norm(weight - 2 * B @ A)
    best = (0.25 ** torch.arange(4, 12)).sum().sqrt()
    assert (tuple(A.shape), tuple(B.shape)) == ((4, shape[1]), (shape[0], 4))
    torch.testing.assert_close(left, best, rtol=1e-3, atol=0)
    assert torch.equal(A, principal(weight, rank=4, scaling=2.0)[0])


def test_a_rank_above_the_weight_s_own_is_filled_with_zeros() -> None:
    weight = matrix(6, 5, rank=5)
    A, B = principal(weight, rank=8, scaling=1.0)
    assert (len(A), B.shape[1]) == (8, 8)
    torch.testing.assert_close(B @ A, weight)


def test_an_orthogonal_start_is_nothing_made_of_something() -> None:
    A, B = orthogonal((48, 32), rank=6, make=torch.Generator().manual_seed(1))
    assert (B @ A).abs().max() < 1e-8
    assert min(A.abs().max(), B.abs().max()) > 1e-3


@pytest.mark.parametrize("options", VARIED, ids=str)
def test_a_trained_pissa_is_what_plain_peft_loads(home: Path, options: dict[str, Any]) -> None:
    base = add_tiny_base("llama", "bf16", home)
    bare = copy.deepcopy(base.model)
    adapter = attached(base, {**PISSA, **options})
    practice.shake(adapter)
    adapter.activate()
    model = peft.get_peft_model(bare, peft.LoraConfig(**adapter.config))
    loaded = peft.set_peft_model_state_dict(model, adapter.state())
    assert loaded.unexpected_keys == []
    assert not [name for name in loaded.missing_keys if "lora_" in name]
    torch.testing.assert_close(plain.logits_of(base.model), plain.logits_of(model))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pissa_trains_as_peft_s_does_on_what_it_leaves_of_the_base(home: Path, family: str) -> None:
    """peft puts the residual in the base's place; the function and its gradients are the same."""
    base = add_tiny_base(family, "bf16", home)
    config = {**Lora().new_config(base.spec, PISSA), "inference_mode": False}
    theirs = peft.get_peft_model(copy.deepcopy(base.model), peft.LoraConfig(**config)).double()
    adapter = Lora().attach(base, "default", config)
    adapter.activate()
    base.model.double()
    gradients = []
    for model in (base.model, theirs):
        factors = [p for n, p in model.named_parameters() if ".lora_" in n]
        for factor in factors:
            factor.requires_grad_(True)
        ids = torch.arange(8, 24).reshape(2, 8)
        model(input_ids=ids, use_cache=False).logits.square().mean().backward()
        gradients.append([factor.grad for factor in factors])
    for ours, other in zip(*gradients, strict=True):
        # The signs of singular vectors are anybody's choice, and here the same library's.
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scheme", ["bf16", "nf4"])
def test_a_fresh_pissa_is_exactly_nothing_and_leaves_the_base_alone(
    home: Path, scheme: str
) -> None:
    base = add_tiny_base("phi3", scheme, home, dense=False)
    before, bare = plain.base_bytes(base.model), plain.logits_of(base.model)
    adapter = attached(base, PISSA)
    adapter.activate()
    assert torch.equal(plain.logits_of(base.model), bare)
    adapter.detach()
    assert plain.base_bytes(base.model) == before


def test_what_is_stored_names_its_own_rank_and_no_start(home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=False)
    adapter = attached(base, {**PISSA, "rank_pattern": {"q_proj": 6}})
    assert (adapter.config["r"], adapter.config["lora_alpha"]) == (8, 16)
    assert adapter.config["rank_pattern"] == {"q_proj": 12}
    assert adapter.config["init_lora_weights"] is True
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert tuple(adapter.state()[name].shape) == (12, 64)
    assert not set(adapter.parameters()) & set(adapter.state())
    orthogonal_one = attached(base, {"rank": 4, "init": "orthogonal"}, "two")
    assert orthogonal_one.config["init_lora_weights"] is True


def test_a_stored_pissa_of_peft_s_own_form_is_refused(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter = attached(base, PISSA)
    config = Lora().new_config(base.spec, PISSA)
    with pytest.raises(CapabilityError, match="changes the base's own weights"):
        Lora().attach(base, "two", config, state=adapter.state())


@pytest.mark.parametrize("start", ["orthogonal", "gaussian"])
def test_a_stored_adapter_s_start_is_history_even_on_a_quantized_base(
    home: Path, start: str
) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=False)
    adapter = attached(base, {"rank": 4})
    practice.shake(adapter)
    config = {**adapter.config, "init_lora_weights": start}
    again = Lora().attach(base, "two", config, state=adapter.state()).state()
    assert all(torch.equal(again[name], tensor) for name, tensor in adapter.state().items())


@pytest.mark.parametrize(
    ("options", "error", "fact"),
    [
        ({"rank_pattern": {"no_proj": 4}}, UsageError, "'no_proj' fits no adapted layer"),
        ({"alpha_pattern": {"c_fc": 4}}, UsageError, "'c_fc' fits no adapted layer"),
        ({"layers": [0, 7]}, UsageError, "no block 7"),
        ({"layers": [7]}, MismatchError, "does not fit this base"),
        ({"targets": "nothing_proj"}, MismatchError, "does not fit this base"),
    ],
    ids=str,
)
def test_an_option_that_reaches_nothing_is_refused(
    home: Path, options: dict[str, Any], error: type[Exception], fact: str
) -> None:
    base = add_tiny_base("llama", "bf16", home)
    before = plain.base_bytes(base.model)
    with pytest.raises(error, match=fact):
        attached(base, options)
    assert plain.base_bytes(base.model) == before
