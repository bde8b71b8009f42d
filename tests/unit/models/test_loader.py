"""Loading a stored base: what its bits stand for, on a CPU, from its own bytes alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import UsageError
from adapterhub.models.bases import base_folder, find_base
from adapterhub.models.loader import load_base
from adapterhub.testing import tiny
from adapterhub.testing.plain import logits_of
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models


def relative(a: Any, b: Any) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_dense_shadow_says_what_the_4_bit_layers_say(family: str, home: Path) -> None:
    quantized = logits_of(add_tiny_base(family, "nf4", home, dense=False).model)
    shadow = logits_of(add_tiny_base(family, "nf4", home, dense=True).model)
    assert relative(shadow, quantized) < 1e-5


def test_an_int8_shadow_differs_only_by_the_rounding_of_activations(home: Path) -> None:
    quantized = logits_of(add_tiny_base("llama", "int8", home, dense=False).model)
    shadow = logits_of(add_tiny_base("llama", "int8", home, dense=True).model)
    assert relative(shadow, quantized) < 0.03


@pytest.mark.parametrize(("scheme", "loss"), [("bf16", 0.01), ("int8", 0.03), ("nf4", 0.5)])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_scheme_keeps_what_its_bits_allow(
    family: str, scheme: str, loss: float, home: Path
) -> None:
    source = logits_of(tiny.tiny_model(family))
    stored = logits_of(add_tiny_base(family, scheme, home, dense=True).model)
    assert relative(stored, source) < loss


@pytest.mark.parametrize("scheme", ["nf4", "int8", "bf16"])
def test_only_the_stored_bytes_are_read(scheme: str, tmp_path: Path) -> None:
    before = logits_of(add_tiny_base("llama", scheme, tmp_path).model)
    shutil.rmtree(tmp_path / "sources")
    after = logits_of(add_tiny_base("llama", scheme, tmp_path).model)
    assert relative(after, before) == 0


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("scheme", ["nf4", "int8", "bf16"])
def test_a_loaded_base_is_frozen_in_float32_and_in_eval_mode(
    scheme: str, dense: bool, home: Path
) -> None:
    model = add_tiny_base("llama", scheme, home, dense=dense).model
    floats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    assert [str(dtype) for dtype in floats] == ["torch.float32"]
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_a_quantized_base_takes_less_room(scheme: str, home: Path) -> None:
    plain, small = (add_tiny_base("llama", s, home).spec for s in ("bf16", scheme))
    assert small.stored_bytes < plain.stored_bytes
    assert small.parameters == plain.parameters


def test_linear_sites_are_the_same_dense_or_quantized_and_never_the_head(home: Path) -> None:
    for family, count in (("llama", 14), ("phi3", 8), ("gpt2", 8)):
        source = add_tiny_base(family, "bf16", home).linear_sites()
        assert len(source) == count
        assert not any("lm_head" in name for name in source)
        for dense in (True, False):
            assert add_tiny_base(family, "nf4", home, dense=dense).linear_sites() == source


def test_every_token_that_ends_a_turn_stops_it(home: Path) -> None:
    assert add_tiny_base("llama", "bf16", home).stop_ids == {tiny.EOS, tiny.END}


def test_a_tokenizer_without_a_padding_token_pads_with_its_last(tmp_path: Path) -> None:
    base = add_tiny_base("llama", "bf16", tmp_path)
    with tiny.temporary_home(tmp_path):
        config = base_folder(base.spec.name) / "tokenizer_config.json"
        config.write_text(config.read_text().replace('"pad_token": "<pad>"', '"pad_token": null'))
        loaded = load_base(find_base(base.spec.name), device="cpu")
    assert loaded.tokenizer.pad_token_id == tiny.EOS


def test_a_device_that_is_not_there_is_refused_before_loading(home: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test wants to be missing")
    base = add_tiny_base("llama", "bf16", home)
    with pytest.raises(UsageError, match="no CUDA device"):
        load_base(base.spec, device="cuda")


@pytest.mark.parametrize("device", ["banana", "cpu:0", "cuda:", "meta", "mps"])
def test_what_is_no_device_is_refused(device: str, home: Path) -> None:
    spec = add_tiny_base("llama", "bf16", home).spec
    with pytest.raises(UsageError, match="is not a device"):
        load_base(spec, device=device)
