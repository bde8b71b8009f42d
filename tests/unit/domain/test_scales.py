"""A pattern is about the modules it says, and factors multiply."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterhub.domain.composition import Term, term_text
from adapterhub.domain.scales import ModuleWeights, both, fault_of, matches, module_weights
from adapterhub.errors import UsageError

MODULES = tuple(
    f"model.layers.{layer}.{module}"
    for layer in range(12)
    for module in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
)
ABOUT: dict[str, tuple[str, bool]] = {
    "mlp": ("model.layers.3.mlp.up_proj", True),
    "mlp.up_proj": ("model.layers.3.mlp.up_proj", True),
    "layers.0-3": ("model.layers.3.mlp.up_proj", True),
    "layers.0-2": ("model.layers.3.mlp.up_proj", False),
    "layers.3": ("model.layers.3.mlp.up_proj", True),
    "layers.03": ("model.layers.3.mlp.up_proj", False),
    "layers.1": ("model.layers.11.mlp.up_proj", False),
    "layers.1-11": ("model.layers.11.mlp.up_proj", True),
    "layers.0-3.mlp": ("model.layers.3.mlp.up_proj", True),
    "layers.mlp": ("model.layers.3.mlp.up_proj", False),
    "layers.*.mlp": ("model.layers.3.mlp.up_proj", True),
    "*": ("lm_head", True),
    "*_proj": ("model.layers.3.mlp.up_proj", True),
    "up": ("model.layers.3.mlp.up_proj", False),
    "MLP": ("model.layers.3.mlp.up_proj", False),
    "0-3": ("transformer.h.3.attn.c_attn", True),
    "model.layers.3.mlp.up_proj": ("model.layers.3.mlp.up_proj", True),
    "model.model": ("model", False),
}


@pytest.mark.parametrize(("pattern", "found"), ABOUT.items(), ids=ABOUT)
def test_a_pattern_is_a_run_of_pieces_of_the_name(pattern: str, found: tuple[str, bool]) -> None:
    assert matches(pattern, found[0]) is found[1]
    assert fault_of({pattern: 0.5}) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "mlp.",
        ".mlp",
        "a b",
        "mlp/up",
        "[ab]",
        "m?p",
        "3-1",
        "layers.(0|1)",
        "é",
        "a" * 201,
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    fault = fault_of({pattern: 0.5})
    assert fault is not None
    assert "is no pattern of modules" in fault[0]


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf, 1000.5, -1e9])
def test_a_factor_that_is_of_no_use_is_refused(factor: float) -> None:
    fault = fault_of({"mlp": factor})
    assert fault is not None
    assert "of mlp is of no use" in fault[0]


def test_zero_and_negative_factors_are_of_use_and_endless_lists_are_not() -> None:
    assert fault_of({"mlp": 0.0, "layers.0-3": -1.0, "*": 1000.0}) is None
    fault = fault_of({f"m{n}": 0.5 for n in range(101)})
    assert fault is not None
    assert fault[0] == "101 patterns are too many"


def test_factors_multiply_with_the_weight_in_any_order() -> None:
    scales = {"layers.0-5": 0.5, "mlp": 0.25, "up_proj": 0.0, "layers.0": -2.0}
    found = module_weights("a", weight=0.8, scales=scales, modules=MODULES)
    assert tuple(found) == MODULES
    assert found["model.layers.0.self_attn.q_proj"] == pytest.approx(0.8 * 0.5 * -2.0)
    assert found["model.layers.3.self_attn.q_proj"] == pytest.approx(0.4)
    assert found["model.layers.3.mlp.down_proj"] == pytest.approx(0.1)
    assert found["model.layers.9.mlp.down_proj"] == pytest.approx(0.2)
    assert found["model.layers.9.self_attn.k_proj"] == 0.8
    assert {found[m] for m in MODULES if m.endswith("up_proj")} == {0.0}
    turned = dict(reversed(scales.items()))
    again = module_weights("a", weight=0.8, scales=turned, modules=MODULES)
    assert list(again.values()) == pytest.approx(list(found.values()))


@given(
    st.dictionaries(st.sampled_from(["mlp", "*", "layers.0-3"]), st.floats(-8, 8)),
    st.dictionaries(st.sampled_from(["mlp", "*", "layers.4-11"]), st.floats(-8, 8)),
)
def test_scales_after_scales_are_their_product(
    one: dict[str, float], two: dict[str, float]
) -> None:
    def product(scales: dict[str, float], module: str) -> float:
        return math.prod(f for pattern, f in scales.items() if matches(pattern, module))

    for module in MODULES[::7]:
        wanted = product(one, module) * product(two, module)
        assert product(both(one, two), module) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("scales", "fact", "hint"),
    [
        ({"mpl": 0.5}, "mpl is about no module of me/a", "did you mean mlp?"),
        ({"self_atn.q_proj": 0.5}, "self_atn.q_proj is about no", "did you mean self_attn.q_proj?"),
        (
            {"mlp": 1.0, "layers.12-20": 0.5},
            "layers.12-20 is about no module",
            "it has q_proj, k_proj, up_proj, down_proj, in layers 0 to 11",
        ),
        ({"*": 0}, "every module of me/a is scaled by 0", "leave me/a out"),
        ({"mlp": 0, "self_attn": 0}, "every module of me/a", "leave me/a out"),
        ({"mlp": 900}, "me/a would weigh 1800 at model.layers.0.mlp.up_proj", "at most 1000"),
    ],
)
def test_scales_that_make_no_sense_of_an_adapter_are_refused(
    scales: dict[str, float], fact: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        module_weights("me/a", weight=2.0, scales=scales, modules=MODULES)
    assert caught.value.message.startswith(fact)
    assert hint in (caught.value.hint or "")


def test_equal_weights_of_modules_are_equal_keys() -> None:
    one = ModuleWeights({"a": 0.5, "b": 0.0})
    same = ModuleWeights({"b": 0.0, "a": 0.5})
    assert {one: 1}[same] == 1
    assert one != ModuleWeights({"a": 0.5, "b": 1.0})
    assert one.times(2.0) == ModuleWeights({"a": 1.0, "b": 0.0})
    weight: object = one
    assert weight != 0.5


def test_a_scaled_adapter_is_not_whole_and_says_so() -> None:
    assert Term(ref="me/a").whole
    assert not Term(ref="me/a", scales={"mlp": 0.0}).whole
    assert term_text("me/a", 0.5, {"layers.0-3": 0.5, "mlp": 0}) == (
        "0.5*me/a (layers.0-3 x 0.5, mlp x 0)"
    )
    assert str(Term(ref="me/a", scales={"mlp": 2})) == "me/a (mlp x 2)"
