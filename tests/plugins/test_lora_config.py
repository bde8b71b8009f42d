"""LoRA's options and stored configs: what is understood, and that the rest is refused aloud."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.quantization import Scheme, scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import AdapterhubError, CapabilityError, MismatchError, UsageError
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.plugin.catalog import catalog
from adapterhub_plugins.peft.config import new_config, to_peft, widened
from adapterhub_plugins.peft.describe import rank_of, scaling_of
from adapterhub_plugins.peft.qlora import QLora

SPEC = BaseSpec(
    name="tiny",
    id="acme/tiny",
    source="acme/tiny",
    revision="abc123",
    family="llama",
    modality="causal-lm",
    scheme=scheme_by_name("nf4"),
    fingerprint=Fingerprint(layout="l", sketch="s", content="c"),
    parameters=1000,
    stored_bytes=600,
    context_length=128,
)


def config(**changes: Any) -> dict[str, Any]:
    return {**new_config(SPEC, {}), **changes}


def test_alpha_is_twice_the_rank_unless_it_is_said() -> None:
    assert (new_config(SPEC, {"rank": 4})["r"], new_config(SPEC, {"rank": 4})["lora_alpha"]) == (
        4,
        8,
    )
    assert new_config(SPEC, {"rank": 4, "alpha": 2.5})["lora_alpha"] == 2.5


def test_a_config_names_its_base_and_commit() -> None:
    made = new_config(SPEC, {})
    assert (made["base_model_name_or_path"], made["revision"]) == ("acme/tiny", "abc123")


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("attention", ["q_proj", "k_proj", "v_proj", "o_proj"]),
        ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        ("q_proj, v_proj", ["q_proj", "v_proj"]),
    ],
)
def test_targets_are_a_group_or_names(targets: str, names: list[str]) -> None:
    assert new_config(SPEC, {"targets": targets})["target_modules"] == names


def test_every_option_has_its_key_of_peft() -> None:
    made = new_config(
        SPEC,
        {
            "rank": 4,
            "targets": ["q_proj", "up_proj"],
            "rslora": True,
            "dora": True,
            "init": "orthogonal",
            "rank_pattern": {"q_proj": 8},
            "alpha_pattern": {"up_proj": 3},
            "layers": "0-2,5",
        },
    )
    assert made["target_modules"] == ["q_proj", "up_proj"]
    assert (made["use_rslora"], made["use_dora"]) == (True, True)
    assert made["init_lora_weights"] == "orthogonal"
    assert (made["rank_pattern"], made["alpha_pattern"]) == ({"q_proj": 8}, {"up_proj": 3})
    assert made["layers_to_transform"] == [0, 1, 2, 5]
    assert decode_config(encode_config(made)) == made


def test_an_option_at_its_default_leaves_no_key() -> None:
    """Older releases of peft refuse keys they do not know."""
    at_rest = {"rslora": False, "dora": False, "init": "default", "layers": None}
    assert new_config(SPEC, {**at_rest, "rank_pattern": {}}) == new_config(SPEC, {})


@pytest.mark.parametrize("rslora", [False, True])
def test_a_widened_config_has_twice_the_ranks_and_the_same_scalings(*, rslora: bool) -> None:
    patterns = {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"v_proj": 3.5}}
    made = new_config(SPEC, {"rank": 4, "alpha": 5, "rslora": rslora, **patterns})
    wide = widened(made)
    for name in ("q_proj", "k_proj", "v_proj"):
        assert rank_of(name, wide) == 2 * rank_of(name, made)
        assert scaling_of(name, wide) == pytest.approx(scaling_of(name, made), rel=1e-15)


def test_qlora_is_for_the_base_of_its_paper() -> None:
    made = QLora().new_config(SPEC, {})
    assert (made["r"], made["lora_alpha"], made["lora_dropout"]) == (64, 16, 0.1)
    assert QLora().new_config(SPEC, {"rank": 4, "alpha": 8, "dropout": 0.0}) == new_config(
        SPEC, {"rank": 4}
    )
    plain = Scheme(name="nf4", block_size=64, double_quant=False)
    for scheme in (scheme_by_name("bf16"), scheme_by_name("int8"), plain):
        with pytest.raises(UsageError, match="NF4 with double quantization"):
            QLora().new_config(replace(SPEC, scheme=scheme), {})


def test_qlora_is_a_preset_of_lora_with_fields_that_a_recipe_has() -> None:
    record = catalog().methods["qlora"]
    assert record.stored_as == "lora"
    assert record.capabilities == catalog().methods["lora"].capabilities
    assert (record.preset["optimizer"], record.preset["checkpointing"]) == (
        "paged_adamw8bit",
        True,
    )
    made = Recipe(base="b", data="d", method="qlora", **record.preset)
    assert made.learning_rate == 2e-4


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"rank": 5000},
        {"rank": 2.5},
        {"rank": "eight"},
        {"rank": True},
        {"alpha": 0},
        {"alpha": float("nan")},
        {"alpha": [1]},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": None},
        {"ranks": 4},
        {"targets": 3},
        {"targets": ["q_proj", 1]},
        {"targets": ""},
        {"rslora": "yes"},
        {"dora": 1},
        {"init": "olora"},
        {"init": None},
        {"init": "orthogonal", "rank": 3},
        {"init": "orthogonal", "rank_pattern": {"q_proj": 5}},
        {"init": "pissa", "dora": True},
        {"init": "pissa", "rank": 4000},
        {"rank_pattern": [4]},
        {"rank_pattern": {"q_proj": 0}},
        {"rank_pattern": {"q_proj": 2.0}},
        {"rank_pattern": {"(": 4}},
        {"rank_pattern": {"(a+)+": 4}},
        {"rank_pattern": {".*.*.*.*.*.*.*": 4}},
        {"rank_pattern": {"": 4}},
        {"alpha_pattern": {"q_proj": 0}},
        {"alpha_pattern": {"q_proj": "1"}},
        {"layers": "3-1"},
        {"layers": "first"},
        {"layers": []},
        {"layers": [-1]},
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        new_config(SPEC, options)


@pytest.mark.models
@pytest.mark.parametrize(
    ("changes", "error", "fact"),
    [
        ({"modules_to_save": ["lm_head"]}, CapabilityError, "modules_to_save"),
        ({"bias": "all"}, CapabilityError, "biases"),
        ({"trainable_token_indices": [1]}, CapabilityError, "trainable_token_indices"),
        ({"lora_bias": True}, CapabilityError, "lora_bias"),
        ({"use_qalora": True}, CapabilityError, "use_qalora"),
        ({"init_lora_weights": "pissa"}, CapabilityError, "pissa"),
        ({"init_lora_weights": "pissa_niter_16"}, CapabilityError, "pissa"),
        ({"kasa_config": {"beta": 1e-4}}, CapabilityError, "kasa_config"),
        ({"kasa_config": {}}, CapabilityError, "kasa_config"),
        ({"velora_config": {}}, CapabilityError, "velora_config"),
        ({"arrow_config": {"top_k": 1}}, CapabilityError, "arrow_config"),
        ({"layers_pattern": "layers"}, MismatchError, "layers_pattern"),
        ({"from_the_future": 1}, MismatchError, "from_the_future"),
    ],
    ids=str,
)
def test_what_would_be_dropped_in_silence_is_refused(
    changes: dict[str, Any], error: type[AdapterhubError], fact: str
) -> None:
    with pytest.raises(error, match=fact):
        to_peft(config(**changes))


@pytest.mark.models
@pytest.mark.parametrize(
    "changes",
    [{"modules_to_save": None}, {"modules_to_save": []}, {"bias": "none"}, {"use_rslora": True}],
    ids=str,
)
def test_keys_at_rest_are_understood(changes: dict[str, Any]) -> None:
    assert to_peft(config(**changes)).r == 8
