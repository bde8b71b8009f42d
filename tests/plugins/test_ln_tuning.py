"""Norm tuning: what plain PEFT makes of it, and what is and is not tuned."""

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


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def attach(base: Base, slot: str = "one", *, seed: int | None = 0, **options: Any) -> Any:
    tuning = method_of("ln_tuning")
    adapter = tuning.attach(base, slot, tuning.new_config(base.spec, options))
    if seed is not None:
        practice.shake(adapter, seed=seed)
    return adapter


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
@pytest.mark.parametrize("options", [{}, {"layers": "1"}])
def test_plain_peft_answers_alike(
    family: str, options: Mapping[str, Any], home: Path, tmp_path: Path
) -> None:
    base = add_tiny_base(family, "bf16", home)
    bare = copy.deepcopy(base.model)
    adapter = attach(base, **options)
    adapter.activate()
    expected = answers_of(bare, write_folder(adapter, tmp_path / "stored"))
    assert apart(plain.logits_of(base.model), expected) < 1e-5


def test_an_adapter_that_peft_made_answers_alike(home: Path) -> None:
    from peft import LNTuningConfig

    base = add_tiny_base("llama", "bf16", home)
    targets = ["input_layernorm", "norm"]
    state, expected = made_by_peft(
        base, LNTuningConfig(task_type="CAUSAL_LM", target_modules=targets)
    )
    adapter = method_of("ln_tuning").attach(base, "one", {"target_modules": targets}, state=state)
    adapter.activate()
    assert apart(plain.logits_of(base.model), expected) < 1e-5


def test_every_norm_on_the_way_is_tuned_the_last_one_too(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    tuned = {name.removeprefix(PREFIX) for name in attach(base).parameters()}
    part = "ln_tuning_layers.weight"
    assert tuned == {
        f"model.norm.{part}",
        *(f"model.layers.{i}.input_layernorm.{part}" for i in range(2)),
        *(f"model.layers.{i}.post_attention_layernorm.{part}" for i in range(2)),
    }


def test_biases_are_tuned_where_norms_have_them(home: Path) -> None:
    names = attach(add_tiny_base("gpt2", "bf16", home), layers=0).parameters()
    assert sorted(name.removeprefix(f"{PREFIX}transformer.h.0.") for name in names) == [
        "ln_1.ln_tuning_layers.bias",
        "ln_1.ln_tuning_layers.weight",
        "ln_2.ln_tuning_layers.bias",
        "ln_2.ln_tuning_layers.weight",
    ]


def test_a_fresh_one_is_stored_as_the_base_s_own_norms(home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=False)
    own = base.parameters()
    for name, tensor in attach(base, seed=None).state().items():
        module = name.removeprefix(PREFIX).removesuffix(".ln_tuning_layers.weight")
        assert bool((tensor == own[f"{module}.weight"]).all())


def test_training_lowers_the_loss(home: Path) -> None:
    base = add_tiny_base("gpt2", "nf4", home, dense=False)
    losses = [step.loss for step in practice.train(base, attach(base, seed=None), steps=16).steps]
    assert sum(losses[-2:]) < 0.97 * sum(losses[:2])


def test_it_sits_beside_a_lora(home: Path) -> None:
    base = add_tiny_base("phi3", "nf4", home, dense=False)
    before = plain.base_bytes(base.model)
    lora = method_of("lora")
    beside = lora.attach(base, "lora", lora.new_config(base.spec, {"rank": 4}))
    practice.shake(beside)
    beside.activate()
    alone = plain.logits_of(base.model)
    tuning = attach(base)
    tuning.activate()
    assert apart(plain.logits_of(base.model), alone) > 1e-4
    tuning.deactivate()
    assert apart(plain.logits_of(base.model), alone) == 0
    beside.detach()
    tuning.detach()
    assert plain.base_bytes(base.model) == before


def test_patches_are_differences_and_ask_for_the_base(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    adapter, tuning = attach(base), method_of("ln_tuning")
    with pytest.raises(CapabilityError, match="difference"):
        list(tuning.patches(adapter.config, adapter.state()))
    patch: Any = dict(tuning.patches(adapter.config, adapter.state(), base))["model.norm"]
    stored = adapter.state()[f"{PREFIX}model.norm.ln_tuning_layers.weight"]
    assert bool((base.parameters()["model.norm.weight"] + patch.difference == stored).all())


def test_one_norm_serves_all_rows_of_a_batch(home: Path) -> None:
    with pytest.raises(CapabilityError, match="row"):
        attach(add_tiny_base("llama", "bf16", home)).activate([1.0, 0.5])


@pytest.mark.parametrize(
    ("config", "error", "word"),
    [
        ({"target_modules": ["q_proj"]}, MismatchError, "no norm called 'q_proj'"),
        ({"target_modules": ".*norm"}, CapabilityError, "target_modules"),
        ({"target_modules": ["norm"], "modules_to_save": ["lm_head"]}, CapabilityError, "to_save"),
    ],
)
def test_a_config_it_cannot_follow_is_refused(
    config: Mapping[str, Any], error: type[Exception], word: str, home: Path
) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(error, match=word):
        method_of("ln_tuning").attach(base, "one", config)
    assert base.shared == {}


def test_options_that_make_no_sense_are_refused(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(UsageError, match="layers"):
        method_of("ln_tuning").new_config(base.spec, {"layers": "first"})
