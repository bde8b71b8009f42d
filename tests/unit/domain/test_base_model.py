"""How a base is recognised, how it is stored, and which of its layers are meant."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from adapterhub.domain.base import Fingerprint, same_base
from adapterhub.domain.quantization import SCHEMES, Scheme, scheme_by_name
from adapterhub.domain.targets import FAMILIES, family_targets
from adapterhub.errors import UsageError

MADE_ON = Fingerprint(layout="l", sketch="s", content="c", tokenizer="t", chat_template="x")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.mark.parametrize(
    ("loaded", "verdict"),
    [
        (MADE_ON, "same"),
        (replace(MADE_ON, tokenizer="other", chat_template=None), "same"),
        (replace(MADE_ON, sketch="other"), "same"),
        (replace(MADE_ON, content="other"), "probable"),
        (replace(MADE_ON, content="other", layout="other"), "probable"),
        (replace(MADE_ON, content="other", sketch="other"), "same layout"),
        (replace(MADE_ON, content="other", sketch="other", layout="other"), "other"),
        (replace(MADE_ON, content="other", canonical="k", arrangement="fused"), "probable"),
    ],
)
def test_equal_bytes_are_the_same_base_and_equal_norms_only_probably(
    loaded: Fingerprint, verdict: str
) -> None:
    assert same_base(MADE_ON, loaded) == verdict
    assert same_base(loaded, MADE_ON) == verdict


def split(content: str, canonical: str | None = "k", sketch: str = "s") -> Fingerprint:
    return Fingerprint(
        layout=content, sketch=sketch, content=content, canonical=canonical, arrangement="split"
    )


def fused(content: str, canonical: str | None = "k", sketch: str = "s") -> Fingerprint:
    return replace(split(content, canonical, sketch), arrangement="fused")


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (split("a"), split("b"), "probable"),
        (split("a"), fused("b"), "convertible"),
        (split("a"), fused("b", canonical=None), "convertible"),
        (split("a"), fused("b", canonical="another"), "probable"),
        (split("a"), fused("b", sketch="another"), "same layout"),
        (split("a"), fused("b", sketch="another", canonical="another"), "other"),
        (split("a"), split("a", sketch="another"), "same"),
    ],
)
def test_the_layout_makes_a_probable_base_convertible_and_never_the_same(
    one: Fingerprint, other: Fingerprint, verdict: str
) -> None:
    assert same_base(one, other) == verdict
    assert same_base(other, one) == verdict


def test_bases_without_norms_are_not_taken_for_each_other() -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    assert same_base(split("a", sketch=nothing), split("b", sketch=nothing)) == "other"


@pytest.mark.parametrize(
    ("scheme", "bits"),
    [
        (Scheme(name="bf16"), 16.0),
        (Scheme(name="int8"), 8.02),
        # QLoRA, section 3: double quantization takes 0.5 bits a weight down to 0.127.
        (Scheme(name="nf4", block_size=64, double_quant=False), 4.5),
        (Scheme(name="nf4", block_size=64, double_quant=True), 4 + 8 / 64 + 32 / (64 * 256)),
        (Scheme(name="nf4", block_size=128, double_quant=False), 4.25),
    ],
    ids=str,
)
def test_bits_count_the_statistics_too(scheme: Scheme, bits: float) -> None:
    assert scheme.bits == pytest.approx(bits)


@pytest.mark.parametrize(
    ("name", "text", "quantized"),
    [
        ("nf4", "nf4 (block 64, double quantization)", True),
        ("int8", "int8", True),
        ("bf16", "bf16", False),
    ],
)
def test_each_scheme_has_its_usual_parameters(name: str, text: str, quantized: bool) -> None:
    scheme = scheme_by_name(name)
    assert (str(scheme), scheme.quantized) == (text, quantized)


def test_the_table_above_knows_every_scheme() -> None:
    assert set(SCHEMES) == {"nf4", "int8", "bf16"}


@pytest.mark.parametrize("name", ["q4", "NF4", ""])
def test_an_unknown_scheme_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="no scheme is called") as raised:
        scheme_by_name(name)
    assert raised.value.hint == "schemes: nf4, int8, bf16"


@pytest.mark.parametrize(
    ("family", "choice", "names"),
    [
        ("llama", "all-linear", (*ATTENTION, "gate_proj", "up_proj", "down_proj")),
        ("llama", "attention", ATTENTION),
        ("llama", "mlp", ("gate_proj", "up_proj", "down_proj")),
        ("phi3", "attention", ("qkv_proj", "o_proj")),
        ("gpt2", "all-linear", ("c_attn", "c_proj", "c_fc")),
        ("llama", "q_proj, v_proj,", ("q_proj", "v_proj")),
        ("never-heard-of", ("wq", "wk"), ("wq", "wk")),
    ],
)
def test_targets_are_the_leaf_names_of_a_family(
    family: str, choice: str | tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert family_targets(family, choice) == names


def test_a_family_nobody_knows_must_be_told_its_layers() -> None:
    with pytest.raises(UsageError, match="never-heard-of") as raised:
        family_targets("never-heard-of")
    assert raised.value.hint == "name them: --targets q_proj,v_proj"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_fused_is_one_of_the_layers(name: str) -> None:
    family = FAMILIES[name]
    assert {fused for fused, _ in family.fused} <= set(family.linear)
    assert len(set(family.linear)) == len(family.linear)
