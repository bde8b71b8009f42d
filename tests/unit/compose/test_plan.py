"""A plan is decided by outlines alone, and refuses what does not fit together."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from adapterhub.compose.outline import Outline, Site
from adapterhub.compose.plan import Arrangement, Plan, arrange, make_plan, settle
from adapterhub.domain.base import Fingerprint
from adapterhub.domain.centroid import Centroid, pack
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.method import Strategy
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import CapabilityError, MismatchError, UsageError

LINEAR = Strategy(name="linear", summary="", target="nowhere:linear", reference="", exact=True)
SEQUENTIAL = Strategy(
    name="sequential", summary="", target="nowhere:sequential", reference="", exact=True
)
SVD = Strategy(name="svd", summary="", target="nowhere:svd", reference="", exact=False)
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
QKV = "model.layers.0.self_attn.qkv_proj"


def site(rank: int, shape: tuple[int, int] = (24, 16), dtype: str = "bfloat16") -> Site:
    return Site(rank=rank, out_features=shape[0], in_features=shape[1], dtype=dtype)


def outline(ref: str, *, base: BaseRecord | None = None, **sites: Site) -> Outline:
    named = {{"q": Q, "down": DOWN, "qkv": QKV}[name]: one for name, one in sites.items()}
    return Outline(
        ref=ref,
        weight=0.5,
        method="lora",
        stackable=True,
        base=base or BaseRecord(id="acme/tiny"),
        sites=named,
    )


def prints(content: str, sketch: str = "s") -> Fingerprint:
    return Fingerprint(layout="l", sketch=sketch, content=content)


ONE = outline("acme/one", q=site(4), down=site(4, (16, 32)))
TWO = outline("acme/two", q=site(8))


def test_a_sum_adds_the_ranks_where_several_take_part() -> None:
    plan = make_plan([ONE, TWO], strategy=LINEAR)
    assert [(step.module, step.rank) for step in plan.steps] == [(DOWN, 4), (Q, 12)]
    assert [part.member for part in plan.steps[1].parts] == [0, 1]
    assert (plan.rank, plan.shared) == (12, 1)
    assert plan.parameters == 4 * (16 + 32) + 12 * (24 + 16)
    assert plan.stored_bytes == 2 * plan.parameters
    assert str(plan) == "linear, rank 4+8 = 12, exact"


@pytest.mark.parametrize(("limit", "ranks"), [(None, [4, 8]), (2, [2, 2]), (10, [4, 10])])
def test_a_truncation_keeps_the_rank_asked_for_or_what_there_is(
    limit: int | None, ranks: list[int]
) -> None:
    plan = make_plan([ONE, TWO], strategy=SVD, rank=limit)
    assert [step.rank for step in plan.steps] == ranks
    assert str(plan).startswith("svd, rank 4+8 -> ")


def test_a_truncation_never_exceeds_the_matrix() -> None:
    wide = [outline(f"acme/{i}", q=site(12)) for i in range(3)]
    assert make_plan(wide, strategy=SVD, rank=100).rank == 16


@pytest.mark.parametrize(
    ("dtypes", "stored"),
    [
        (("bfloat16", "bfloat16"), "bfloat16"),
        (("float16", "bfloat16"), "float32"),
        (("mixed", "mixed"), "float32"),
        (("float8_e4m3fn", "float8_e4m3fn"), "float32"),
    ],
)
def test_the_members_dtype_is_kept_if_they_share_one(dtypes: tuple[str, str], stored: str) -> None:
    outlines = [outline(f"acme/{i}", q=site(4, dtype=dtype)) for i, dtype in enumerate(dtypes)]
    assert make_plan(outlines, strategy=LINEAR).dtype == stored


def test_a_shape_clash_names_the_module_both_adapters_and_both_shapes() -> None:
    with pytest.raises(MismatchError) as caught:
        make_plan([ONE, outline("acme/odd", q=site(4, (24, 20)))], strategy=LINEAR)
    for fact in (Q, "acme/one", "acme/odd", "(24, 16)", "(24, 20)"):
        assert fact in caught.value.message


SAME = [
    (BaseRecord(id="a/b"), BaseRecord(id="a/b")),
    (BaseRecord(id="a/b", revision="main"), BaseRecord(id="a/b", revision="f" * 40)),
    (BaseRecord(id="a/b", fingerprint=prints("c")), BaseRecord(id="x/y", fingerprint=prints("c"))),
    (BaseRecord(id="a/b", fingerprint=prints("c")), BaseRecord(id="a/b", fingerprint=prints("d"))),
]
OTHER = [
    (BaseRecord(id="a/b"), BaseRecord(id="a/c")),
    (BaseRecord(id="a/b", revision="e" * 40), BaseRecord(id="a/b", revision="f" * 40)),
    (BaseRecord(id="a/b", fingerprint=prints("c")), BaseRecord(id="x/y", fingerprint=prints("d"))),
    (
        BaseRecord(id="a/b", fingerprint=prints("c", "s")),
        BaseRecord(id="a/b", fingerprint=prints("d", "t")),
    ),
]


@pytest.mark.parametrize("bases", SAME)
def test_adapters_of_one_base_fit_together(bases: tuple[BaseRecord, BaseRecord]) -> None:
    one, two = (outline(f"acme/{i}", base=base, q=site(4)) for i, base in enumerate(bases))
    assert make_plan([one, two], strategy=LINEAR).allowed == ()


@pytest.mark.parametrize("bases", OTHER)
def test_adapters_of_two_bases_are_refused_naming_both_unless_allowed(
    bases: tuple[BaseRecord, BaseRecord],
) -> None:
    one, two = (outline(f"acme/{i}", base=base, q=site(4)) for i, base in enumerate(bases))
    with pytest.raises(MismatchError) as caught:
        make_plan([one, two], strategy=LINEAR)
    for fact in ("acme/0", "acme/1", bases[0].id, bases[1].id):
        assert fact in caught.value.message
    assert "--allow different-base" in str(caught.value.hint)
    plan = make_plan([one, two], strategy=LINEAR, allow=["different-base"])
    assert plan.allowed == ("different-base",)


def test_the_best_informed_member_speaks_for_the_base() -> None:
    nf4 = scheme_by_name("nf4")
    known = BaseRecord(id="acme/tiny", fingerprint=prints("c"), scheme=nf4)
    outlines = [ONE, replace(ONE, ref="acme/known", base=known)]
    base = make_plan(outlines, strategy=LINEAR).base
    assert base.fingerprint == known.fingerprint
    assert base.scheme is None  # the other's is unknown, so theirs in common is too


def test_a_fused_layer_beside_its_part_is_refused_naming_both() -> None:
    fused = outline("acme/fused", qkv=site(4, (72, 16)))
    with pytest.raises(MismatchError, match=r"acme/fused .*qkv_proj, but acme/one .*q_proj"):
        make_plan([ONE, fused], strategy=LINEAR)


def test_a_method_that_does_not_stack_is_refused_by_name() -> None:
    prompt = replace(TWO, ref="acme/prompt", method="prompt_tuning", stackable=False)
    with pytest.raises(CapabilityError, match="acme/prompt is a prompt_tuning adapter"):
        make_plan([ONE, prompt], strategy=LINEAR)


PROMPT = replace(
    TWO, ref="acme/prompt", method="prompt_design", sites={}, unmergeable="it has a prompt"
)


def test_what_is_more_than_deltas_is_not_merged_naming_adapter_method_and_reason() -> None:
    fact = "acme/prompt, a prompt_design adapter, cannot be merged: it has a prompt"
    with pytest.raises(CapabilityError, match=fact):
        make_plan([ONE, PROMPT], strategy=LINEAR)


def test_what_is_more_than_deltas_is_attached_beside_others() -> None:
    found = arrange([ONE, PROMPT], strategy=LINEAR)
    assert [term.ref for term in found.terms] == ["acme/one", "acme/prompt"]
    assert str(found) == "linear, 0.5*acme/one + 0.5*acme/prompt, attached"


def test_attaching_checks_bases_and_shapes_as_merging_does() -> None:
    with pytest.raises(MismatchError, match="but acme/prompt for acme/other"):
        arrange([ONE, replace(PROMPT, base=BaseRecord(id="acme/other"))], strategy=LINEAR)
    with pytest.raises(MismatchError, match="acme/odd"):
        arrange([ONE, PROMPT, outline("acme/odd", q=site(4, (24, 20)))], strategy=LINEAR)


def test_a_sequence_is_attached_and_never_merged() -> None:
    assert str(arrange([ONE, TWO], strategy=SEQUENTIAL)).startswith("sequential, 0.5*acme/one then")
    with pytest.raises(CapabilityError, match="attached only"):
        make_plan([ONE, TWO], strategy=SEQUENTIAL)


@pytest.mark.parametrize(
    ("other", "strategy", "kind"),
    [
        (TWO, LINEAR, Plan),
        (TWO, SVD, Plan),
        (TWO, SEQUENTIAL, Arrangement),
        (PROMPT, LINEAR, Arrangement),
    ],
)
def test_what_can_be_merged_is_planned_and_all_else_arranged(
    other: Outline, strategy: Strategy, kind: type
) -> None:
    assert type(settle([ONE, other], strategy=strategy)) is kind


def test_a_strategy_that_only_merges_takes_no_prompt() -> None:
    with pytest.raises(CapabilityError, match="acme/prompt"):
        settle([ONE, PROMPT], strategy=SVD)
    with pytest.raises(CapabilityError, match="svd cannot be attached"):
        arrange([ONE, TWO], strategy=SVD)


def test_a_rank_for_an_exact_sum_is_refused_and_svd_pointed_at() -> None:
    with pytest.raises(UsageError) as caught:
        make_plan([ONE, TWO], strategy=LINEAR, rank=8)
    assert "--strategy svd --rank 8" in str(caught.value.hint)


@pytest.mark.parametrize("rank", [0, -2])
def test_a_rank_below_one_is_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=f"rank {rank}"):
        make_plan([ONE, TWO], strategy=SVD, rank=rank)


def test_nothing_to_stack_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to stack"):
        make_plan([], strategy=LINEAR)


def test_planning_needs_no_torch() -> None:
    code = "import sys, adapterhub.compose.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["switch", "route"])
def test_what_chooses_one_adapter_is_never_merged(name: str) -> None:
    strategy = replace(SEQUENTIAL, name=name)
    with pytest.raises(CapabilityError, match=f"{name} exists attached only: each") as caught:
        make_plan([ONE, TWO], strategy=strategy)
    assert caught.value.hint == f"leave -o out: adapterhub stack A B --strategy {name}"


def test_adapters_that_answer_alone_need_only_be_for_one_base() -> None:
    switch = replace(SEQUENTIAL, name="switch")
    odd = replace(outline("acme/odd", q=site(4, (99, 99))), stackable=False, method="prompt_tuning")
    found = settle([ONE, odd], strategy=switch)
    assert str(found) == "switch, 0.5*acme/one or 0.5*acme/odd, attached"
    with pytest.raises(MismatchError, match="but acme/odd for acme/other"):
        settle([ONE, replace(odd, base=BaseRecord(id="acme/other"))], strategy=switch)


def test_routing_needs_a_centroid_of_each_taken_alike() -> None:
    route = replace(SEQUENTIAL, name="route")
    centroid = Centroid(
        values=pack((0.6, -0.8)), dimension=2, prompts=9, layer=1, base="b", rule="r"
    )
    one, two = replace(ONE, centroid=centroid), replace(TWO, centroid=centroid)
    assert arrange([one, two], strategy=route).strategy.name == "route"
    with pytest.raises(MismatchError, match="acme/two has no centroid"):
        arrange([one, TWO], strategy=route)
    changes: dict[str, Any]
    for changes in ({"layer": 2}, {"rule": "q"}):
        other = replace(two, centroid=replace(centroid, **changes))
        with pytest.raises(MismatchError, match="centroids of acme/one and acme/two differ in"):
            arrange([one, other], strategy=route)
