"""The description of a stored LoRA says what peft itself would add to each weight."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from adapterhub.errors import CapabilityError, FormatError, MismatchError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapterhub_plugins.peft.describe import lora_patches, rank_of, scaling_of  # noqa: E402

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

STORED = "base_model.model.model.layers.0.self_attn.q_proj"


def tiny_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=12, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, max_position_embeddings=32,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def trained(**options: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A peft model with random factors, its stored config and its stored tensors."""
    config = peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj", "down_proj"], **options})
    model = peft.get_peft_model(tiny_llama(), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    return model, model.peft_config["default"].to_dict(), stored(model)


def stored(model: Any) -> dict[str, Any]:
    """What peft would save. Embeddings whole are left out, of which peft would warn."""
    return dict(peft.get_peft_model_state_dict(model, save_embedding_layers=False))


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


PATTERNS = [
    {},
    {"lora_alpha": 32},
    {"lora_alpha": 32, "use_rslora": True},
    {"rank_pattern": {"q_proj": 2}},
    {"rank_pattern": {"layers.1.self_attn.q_proj": 2}},  # neither layer 11's nor any other
    {"rank_pattern": {r"layers\.1\d\..*": 3, "q_proj": 2}},  # the first that matches wins
    {"rank_pattern": {"q_proj": 2, r"layers\.1\d\..*": 3}},
    {"rank_pattern": {"^model.layers.3.mlp.down_proj": 1}, "alpha_pattern": {"down_proj": 1}},
    {"alpha_pattern": {r".*\.self_attn\..*": 5}, "rank_pattern": {"q_proj": 2}},
    {"rank_pattern": {"q_proj|down_proj": 6}, "alpha_pattern": {"q_proj": 9}, "use_rslora": True},
]


@pytest.mark.parametrize("options", PATTERNS, ids=str)
def test_the_patches_are_the_deltas_that_peft_computes(options: dict[str, Any]) -> None:
    model, config, state = trained(**options)
    patches = dict(lora_patches(config, state))
    expected = dict(layers(model))
    assert patches.keys() == expected.keys()
    for name, layer in expected.items():
        patch = patches[name]
        assert patch.low_rank_only
        assert patch.rank == layer.r["default"] == rank_of(name, config)
        assert patch.scaling == layer.scaling["default"] == scaling_of(name, config)
        delta = layer.get_delta_weight("default")
        torch.testing.assert_close(patch.scaling * patch.B @ patch.A, delta)


def test_patches_come_in_the_order_of_their_names_and_read_one_module_at_a_time() -> None:
    _, config, state = trained()
    read: list[str] = []

    class Watched(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            read.append(name)
            return super().__getitem__(name)

    patches = lora_patches(config, Watched(state))
    first, _ = next(patches)
    assert len(read) == 2
    assert [first, *(name for name, _ in patches)] == sorted(
        {name.removeprefix("base_model.model.").split(".lora_")[0] for name in state}
    )


@pytest.mark.parametrize("key", ["proj", "self_attn", "0.self_attn.q", "layers.0"])
def test_half_a_name_matches_no_pattern_as_in_peft(key: str) -> None:
    from peft.utils.other import get_pattern_key

    name = "model.layers.0.self_attn.q_proj"
    assert get_pattern_key([key], name) == name
    assert rank_of(name, {"r": 4, "rank_pattern": {key: 2}}) == 4


# peft takes a bias for the remains of a sharded factor.
@pytest.mark.filterwarnings("ignore:.*have invalid shape")
def test_a_bias_beside_b_is_described_as_peft_adds_it() -> None:
    # A base without biases makes peft warn that this cannot be merged, so one with them is used.
    base = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"], lora_bias=True)
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    state = stored(model)
    ((_, patch),) = lora_patches(model.peft_config["default"].to_dict(), state)
    layer = model.base_model.model[0]
    x = torch.randn(7, 6)
    expected = layer(x) - layer.get_base_layer()(x)
    torch.testing.assert_close(patch.scaling * x @ patch.A.T @ patch.B.T + patch.bias, expected)
    assert not patch.low_rank_only


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "fully trained modules"),
        ({"trainable_token_indices": [1, 2]}, "token embeddings"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"init_lora_weights": "olora"}, "'olora'"),
        ({"target_modules": ["embed_tokens"]}, "embedding"),
        ({"bias": "lora_only", "target_modules": ["0"]}, "trained bias"),
    ],
    ids=str,
)
def test_what_is_not_a_low_rank_delta_is_refused_by_name(
    options: dict[str, Any], named: str
) -> None:
    if options.get("bias"):
        config = peft.LoraConfig(r=4, **options)
        model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(6, 5)), config)
        written, state = config.to_dict(), stored(model)
    else:
        _, written, state = trained(**options)
    with pytest.raises(CapabilityError, match=named) as caught:
        list(lora_patches(written, state))
    assert caught.value.hint


def test_a_dora_magnitude_is_refused_even_if_the_config_hides_it() -> None:
    _, config, state = trained(use_dora=True)
    with pytest.raises(CapabilityError, match="DoRA"):
        list(lora_patches({**config, "use_dora": False}, state))


def test_a_convolution_is_refused_by_name() -> None:
    state = {
        f"{STORED}.lora_A.weight": torch.zeros(2, 3, 3, 3),
        f"{STORED}.lora_B.weight": torch.zeros(8, 2, 1, 1),
    }
    with pytest.raises(CapabilityError, match="q_proj is a convolution"):
        list(lora_patches({"r": 2}, state))


def test_a_rank_that_contradicts_the_config_is_refused_by_name() -> None:
    _, config, state = trained()
    with pytest.raises(MismatchError, match=r"down_proj should have rank 3, but lora_A is \(4, 48"):
        list(lora_patches({**config, "r": 3}, state))


@pytest.mark.parametrize(
    "name", [f"{STORED}.lora_C.weight", "model.layers.0.lora_A.weight", f"{STORED}.lora_A.x.weight"]
)
def test_a_tensor_that_no_lora_has_is_refused_by_name(name: str) -> None:
    with pytest.raises(FormatError, match=r"no part of a LoRA"):
        list(lora_patches({"r": 2}, {name: torch.zeros(2, 2)}))


def test_half_a_pair_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match=r"q_proj has no lora_B"):
        list(lora_patches({"r": 2}, {f"{STORED}.lora_A.weight": torch.zeros(2, 2)}))


def test_defaults_are_pefts_own() -> None:
    plain = peft.LoraConfig()
    assert rank_of("q_proj", {}) == plain.r
    assert scaling_of("q_proj", {}) == plain.lora_alpha / plain.r
    assert scaling_of("q_proj", {"r": 4, "lora_alpha": 6, "use_rslora": True}) == 6 / math.sqrt(4)
