"""The methods over sites work on every family, as their patches say and like plain PEFT."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.targets import FAMILIES
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import HIDDEN, add_tiny_base
from tests.plugins.plain_peft import answers_of, write_folder

pytestmark = pytest.mark.models

METHODS = {
    "ia3": {},
    "ln_tuning": {},
    "bottleneck": {"placement": "houlsby"},
    "full": {"parts": "layers"},
}
# The three kinds that no tiny base stands for: norms behind sublayers, norms of heads, both.
OWN_TENSORS = ("gemma", "gemma2", "gemma3_text", "qwen3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def tiny(family: str, home: Path) -> Base:
    """A base of any family: a llama's spec and tokenizer round another model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if family not in OWN_TENSORS:
        return add_tiny_base(family, "bf16", home)
    llama = add_tiny_base("llama", "bf16", home)
    config = AutoConfig.for_model(
        family,
        vocab_size=llama.model.config.vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.15,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.requires_grad_(False)
    return Base(
        spec=dataclasses.replace(llama.spec, family=family),
        model=model.eval(),
        tokenizer=llama.tokenizer,
        device="cpu",
        dense=True,
    )


def attach(method: str, base: Base) -> Any:
    made = method_of(method)
    return made.attach(base, "one", made.new_config(base.spec, METHODS[method]))


def apart(a: Any, b: Any) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_it_starts_as_nothing_and_does_what_its_patches_say(
    method: str, family: str, home: Path
) -> None:
    base = tiny(family, home)
    bare, untouched = plain.logits_of(base.model), copy.deepcopy(base.model)
    adapter = attach(method, base)
    adapter.activate()
    assert apart(plain.logits_of(base.model), bare) < 1e-5
    practice.shake(adapter)
    patches = list(method_of(method).patches(adapter.config, adapter.state(), base))
    expected = plain.answers(untouched, [(patches, 1.0)])
    found = plain.logits_of(base.model)
    assert apart(found, bare) > 1e-4
    assert apart(found, expected) < 1e-4


@pytest.mark.parametrize("family", ["mistral", *OWN_TENSORS])
@pytest.mark.parametrize("method", ["ia3", "ln_tuning"])
def test_plain_peft_answers_alike(method: str, family: str, home: Path, tmp_path: Path) -> None:
    base = tiny(family, home)
    untouched = copy.deepcopy(base.model)
    adapter = attach(method, base)
    practice.shake(adapter)
    adapter.activate()
    expected = answers_of(untouched, write_folder(adapter, tmp_path / "stored"))
    assert apart(plain.logits_of(base.model), expected) < 1e-5
