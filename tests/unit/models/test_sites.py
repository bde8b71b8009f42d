"""Sites name the same places on every family, and changes there add up and leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import CapabilityError, UsageError
from adapterhub.models.loader import Base
from adapterhub.testing import plain
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

FAMILIES = ("llama", "phi3", "qwen2", "gpt2")
DOWN = "model.layers.0.mlp.down_proj"
HIDDEN = 64


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def llama(home: Path) -> Base:
    return add_tiny_base("llama", "bf16", home)


def apart(a: Any, b: Any) -> float:
    return float((a - b).abs().max() / b.abs().max())


def hooks_of(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_block_has_an_attention_and_an_mlp(family: str, home: Path) -> None:
    base = add_tiny_base(family, "bf16", home)
    for kind in ("attention", "mlp"):
        sites = base.sites(kind)
        assert len(sites) == 2
        assert all(site.shape == (HIDDEN, HIDDEN) for site in sites.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", ["bf16", "nf4"])
def test_a_linear_site_shows_the_weight_it_computes_with(
    family: str, scheme: str, home: Path
) -> None:
    import torch

    base = add_tiny_base(family, scheme, home, dense=False)
    for site in base.sites("linear").values():
        out, width = site.shape
        x = torch.eye(width)
        with torch.inference_mode():
            y = site.module(x) - (0 if site.module.bias is None else site.module.bias)
        assert tuple(site.weight().shape) == (out, width)
        assert apart(y.T, site.weight()) < 1e-5, site.name


@pytest.mark.parametrize(
    ("family", "layer", "sections"),
    [
        (
            "phi3",
            "self_attn.qkv_proj",
            {"q_proj": (0, 64), "k_proj": (64, 96), "v_proj": (96, 128)},
        ),
        ("phi3", "mlp.gate_up_proj", {"gate_proj": (0, 128), "up_proj": (128, 256)}),
        ("gpt2", "attn.c_attn", {"q": (0, 64), "k": (64, 128), "v": (128, 192)}),
        ("llama", "self_attn.k_proj", {}),
    ],
)
def test_a_fused_layer_has_sections(
    family: str, layer: str, sections: dict[str, tuple[int, int]], home: Path
) -> None:
    linear = add_tiny_base(family, "bf16", home).sites("linear")
    site = next(site for name, site in linear.items() if name.endswith(layer))
    assert dict(site.sections) == sections


def test_the_head_is_no_site(home: Path) -> None:
    assert "lm_head" not in llama(home).sites("linear")


def test_a_sublayer_has_no_weight_of_its_own(home: Path) -> None:
    with pytest.raises(CapabilityError, match="sublayer"):
        next(iter(llama(home).sites("mlp").values())).weight()


def test_a_change_of_the_input_is_read_and_leaves_no_hook(home: Path) -> None:
    import torch

    base = llama(home)
    before = hooks_of(base.model)
    site = base.sites("linear")[DOWN]
    x = torch.randn(1, 3, site.shape[1])
    handle = site.add_to_input(lambda x: x)
    assert apart(site.module(x), 2 * x @ site.weight().T) < 1e-6
    handle.remove()
    assert apart(site.module(x), x @ site.weight().T) < 1e-6
    assert hooks_of(base.model) == before


def test_changes_of_the_output_add_up_or_feed_each_other(home: Path) -> None:
    import torch

    base = llama(home)
    site = base.sites("linear")[DOWN]
    x = torch.randn(1, 3, site.shape[1])
    y = site.module(x)
    site.add_to_output(lambda x, y: y)
    site.add_to_output(lambda x, y: 2 * y)
    assert apart(site.module(x), 4 * y) < 1e-6
    base.sequential = True
    assert apart(site.module(x), 6 * y) < 1e-6


def test_a_change_of_the_output_is_given_the_base_s_own_values(home: Path) -> None:
    """Whatever else changes what the layer reads, or the weight that it computes with."""
    import torch

    base = llama(home)
    site = base.sites("linear")[DOWN]
    x = torch.randn(1, 3, site.shape[1])
    y = site.module(x)
    seen: list[tuple[Any, Any]] = []

    def watch(x: Any, y: Any) -> Any:
        seen.append((x, y))
        return torch.zeros_like(y)

    changes = [
        site.add_to_output(watch),
        site.add_to_input(lambda x: x),
        base.add_to_parameter(f"{DOWN}.weight", site.weight),
    ]
    assert apart(site.module(x), 4 * y) < 1e-6
    for change in changes:
        change.remove()
    assert apart(seen[0][0], x) == 0
    assert apart(seen[0][1], y) < 1e-6
    assert apart(site.module(x), y) == 0


def test_an_attention_is_changed_whatever_else_it_answers(home: Path) -> None:
    for family in FAMILIES:
        base = add_tiny_base(family, "bf16", home)
        bare = plain.logits_of(base.model)
        site = next(iter(base.sites("attention").values()))
        handle = site.add_to_output(lambda x, y: x + y)
        assert apart(plain.logits_of(base.model), bare) > 1e-3
        handle.remove()
        assert apart(plain.logits_of(base.model), bare) == 0


def test_a_change_keeps_the_dtype_of_what_it_changes(home: Path) -> None:
    import torch

    base = llama(home)
    base.model.to(torch.bfloat16)
    site = base.sites("linear")[DOWN]
    site.add_to_input(lambda x: x.float())
    site.add_to_output(lambda x, y: y.float())
    assert site.module(torch.ones(1, 2, site.shape[1]).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], [1.0]])
def test_rows_and_their_weights_are_as_many(weights: list[float], home: Path) -> None:
    import torch

    base = llama(home)
    site = base.sites("linear")[DOWN]
    x = torch.ones(len(weights), 2, site.shape[1])
    rows = torch.tensor(weights).reshape(-1, 1, 1)
    site.add_to_output(lambda x, y: rows * y)
    site.module(x)
    if len(weights) > 1:
        with pytest.raises(UsageError, match="makes"):
            site.module(x[:1])


def test_removing_twice_does_no_harm(home: Path) -> None:
    base = llama(home)
    bare = plain.logits_of(base.model)
    site = base.sites("linear")[DOWN]
    first = site.add_to_output(lambda x, y: y)
    first.remove()
    site.add_to_output(lambda x, y: y)
    first.remove()
    assert apart(plain.logits_of(base.model), bare) > 0
