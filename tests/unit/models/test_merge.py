"""Folding patches into a base: it answers as they say, or nothing has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.patch import Affine, Block, Patch, Prompt, Weights
from adapterhub.errors import CapabilityError, MismatchError
from adapterhub.models.loader import Base
from adapterhub.models.merge import merge
from adapterhub.testing import plain
from adapterhub.testing.ground import apart
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

LAYER = {"llama": "model.layers.0.mlp.down_proj", "gpt2": "transformer.h.0.mlp.c_proj"}


def random(*shape: int, seed: int = 0, size: float = 0.05) -> Any:
    import torch

    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def affine(base: Base, layer: str) -> Affine:
    """One that has every part."""
    out, width = base.sites("linear")[layer].shape
    return Affine(
        A=random(3, width, seed=1),
        B=random(out, 3, seed=2),
        scaling=2.0,
        row_scale=1 + random(out, seed=3),
        column_scale=1 + random(width, seed=4),
        bias=random(out, seed=5),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("weight", [1.0, -0.5])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_merged_base_answers_as_the_patches_say(family: str, weight: float, home: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    patches = [(LAYER[family], affine(base, LAYER[family]))]
    expected = plain.answers(base.model, [(patches, weight)])
    merge(base, patches, weight=weight)
    assert apart(plain.logits_of(base.model), expected) < 1e-5


def test_a_difference_of_a_tied_weight_is_added_once(home: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    shape = base.model.get_input_embeddings().weight.shape
    patches = [("model.embed_tokens", Weights(difference=random(*shape)))]
    expected = plain.answers(base.model, [(patches, 1.0)])
    merge(base, patches)
    assert apart(plain.logits_of(base.model), expected) < 1e-5
    assert base.model.lm_head.weight is base.model.get_input_embeddings().weight


def test_a_difference_of_a_transposed_weight_has_its_own_shape(home: Path) -> None:
    base = add_tiny_base("gpt2", "bf16", home)
    module = base.model.get_submodule(LAYER["gpt2"])
    patches = [(LAYER["gpt2"], Weights(difference=random(*module.weight.shape)))]
    expected = plain.answers(base.model, [(patches, 1.0)])
    merge(base, patches)
    assert apart(plain.logits_of(base.model), expected) < 1e-5


def test_a_half_precision_base_stays_one(home: Path) -> None:
    import torch

    base = add_tiny_base("llama", "bf16", home)
    patches = [(LAYER["llama"], affine(base, LAYER["llama"]))]
    expected = plain.answers(base.model, [(patches, 1.0)])
    base.model.bfloat16()
    merge(base, patches)
    found = plain.logits_of(base.model)
    assert found.dtype is torch.bfloat16
    assert apart(found, expected) < 0.1


def test_a_quantized_base_asks_first_and_then_answers_exactly(home: Path) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=False)
    dense = add_tiny_base("llama", "nf4", home, dense=True)
    patches = [(LAYER["llama"], affine(base, LAYER["llama"]))]
    before = plain.base_bytes(base.model)
    with pytest.raises(CapabilityError, match="nf4"):
        merge(base, patches)
    assert plain.base_bytes(base.model) == before
    merge(base, patches, dequantize=True)
    expected = plain.answers(dense.model, [(patches, 1.0)])
    assert apart(plain.logits_of(base.model), expected) < 1e-4
    untouched = [site for name, site in base.sites("linear").items() if name != LAYER["llama"]]
    assert {type(site.module).__name__ for site in untouched} == {"Linear4bit"}
    assert base.model.get_submodule(LAYER["llama"]) is base.sites("linear")[LAYER["llama"]].module


def strangers(base: Base) -> dict[str, tuple[tuple[str, Patch], type[Exception]]]:
    import torch

    layer = LAYER["llama"]
    wide = Affine(A=random(2, 7), B=random(9, 2))
    return {
        "a block": (("model.layers.0.mlp", Block(module=torch.nn.Identity())), CapabilityError),
        "a prompt": (("", Prompt(embeddings=random(2, 64))), CapabilityError),
        "another base's layer": (("model.layers.9.mlp", wide), MismatchError),
        "another shape": ((layer, wide), MismatchError),
        "a bias of another width": ((layer, Affine(bias=random(9))), MismatchError),
        "a parameter it lacks": ((layer, Weights(difference=random(64), parameter="bias")),
                                 MismatchError),
        "a difference of another shape": ((layer, Weights(difference=random(3))), MismatchError),
    }  # fmt: skip


def test_what_does_not_belong_in_the_weights_changes_nothing(home: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    good = (LAYER["llama"], affine(base, LAYER["llama"]))
    before = plain.base_bytes(base.model)
    for name, (patch, error) in strangers(base).items():
        with pytest.raises(error):
            merge(base, [good, patch])
        assert plain.base_bytes(base.model) == before, name
