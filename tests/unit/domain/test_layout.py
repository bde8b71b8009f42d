"""One canonical form for fused, split and wrapped files of an architecture."""

from __future__ import annotations

import pytest

from adapterhub.domain.layout import (
    Heads,
    arrangement,
    canonical_digest,
    canonical_names,
    heads_in,
    section_rows,
)

HEADS = Heads(queries=4, groups=2)
ATTENTION = "layers.0.self_attn"
MLP = "layers.0.mlp"
SPLIT = {
    f"model.{ATTENTION}.q_proj.weight": (32, 16),
    f"model.{ATTENTION}.k_proj.weight": (16, 16),
    f"model.{ATTENTION}.v_proj.weight": (16, 16),
    f"model.{MLP}.gate_proj.weight": (24, 16),
    f"model.{MLP}.up_proj.weight": (24, 16),
    "model.norm.weight": (16,),
    "lm_head.weight": (50, 16),
}
FUSED = {
    f"model.{ATTENTION}.qkv_proj.weight": (64, 16),
    f"model.{MLP}.gate_up_proj.weight": (48, 16),
    "model.norm.weight": (16,),
    "lm_head.weight": (50, 16),
}


def digest(shapes: dict[str, tuple[int, ...]], *, tied: bool = False) -> str | None:
    return canonical_digest(shapes, HEADS, tied=tied)


def test_fused_and_split_are_one_form() -> None:
    assert digest(FUSED) == digest(SPLIT)


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_model.", "transformer."])
def test_wrappers_round_a_name_do_not_count(prefix: str) -> None:
    wrapped = {f"{prefix}{name}": shape for name, shape in SPLIT.items()}
    assert digest(wrapped) == digest(SPLIT)


@pytest.mark.parametrize(
    "changed",
    [
        {"lm_head.weight": (51, 16)},
        {f"model.{ATTENTION}.k_proj.weight": (32, 16)},
        {"model.layers.1.mlp.up_proj.weight": (24, 16)},
    ],
)
def test_another_shape_is_another_form(changed: dict[str, tuple[int, ...]]) -> None:
    assert digest({**SPLIT, **changed}) != digest(SPLIT)


def test_a_tied_head_may_be_repeated_and_buffers_stored() -> None:
    without = {name: shape for name, shape in SPLIT.items() if name != "lm_head.weight"}
    buffers = {f"model.{ATTENTION}.rotary_emb.inv_freq": (4,)}
    assert digest({**SPLIT, **buffers}, tied=True) == digest(without, tied=True)
    assert digest(SPLIT) != digest(without)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 2}, HEADS),
        ({"text_config": {"num_attention_heads": 4, "num_key_value_heads": 2}}, HEADS),
        ({"num_attention_heads": 4}, Heads(queries=4, groups=4)),
        ({"n_head": 4}, None),
        ({"num_attention_heads": "4"}, None),
        ({"num_attention_heads": 2, "num_key_value_heads": 4}, None),
        ({"text_config": 3}, None),
    ],
)
def test_a_config_tells_its_heads(config: dict[str, object], heads: Heads | None) -> None:
    assert heads_in(config) == heads


def test_what_cannot_be_divided_has_no_form() -> None:
    assert canonical_digest(FUSED, None, tied=False) is None
    assert canonical_digest(FUSED, Heads(queries=4, groups=4), tied=False) is None
    odd = {f"{MLP}.gate_up_proj.weight": (47, 16)}
    assert canonical_digest(odd, HEADS, tied=False) is None


def test_rows_are_in_the_order_of_the_names() -> None:
    name = f"model.{ATTENTION}.qkv_proj.weight"
    assert canonical_names(name) == tuple(f"{ATTENTION}.{p}_proj.weight" for p in "qkv")
    assert section_rows(64, 3, HEADS) == (32, 16, 16)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (SPLIT, "split"),
        (FUSED, "fused"),
        ([f"model.language_model.{ATTENTION}.q_proj.weight"], "split in language_model"),
        (["transformer.h.0.attn.c_attn.weight"], "plain"),
    ],
)
def test_the_arrangement_is_told_by_the_names(names: list[str], expected: str) -> None:
    assert arrangement(names) == expected
