"""LoRA's options and stored configs: what is understood, and that the rest is refused aloud."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import AdapterhubError, CapabilityError, MismatchError, UsageError
from adapterhub_plugins.peft.config import new_config, to_peft

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
