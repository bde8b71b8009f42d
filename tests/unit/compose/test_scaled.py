"""A weight of its own for some modules of a member goes into plan, result, pin and manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import CapabilityError, UsageError
from adapterhub.formats.composition_file import decode_composition
from adapterhub.hub.folder import read_folder
from adapterhub.plugin.catalog import catalog

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from adapterhub.compose.compatibility import relate  # noqa: E402
from adapterhub.compose.executor import merge  # noqa: E402
from adapterhub.compose.members import Member, outline  # noqa: E402
from adapterhub.compose.pin import pin, reopen, write_pinned  # noqa: E402
from adapterhub.compose.plan import Plan, arrange, make_plan, settle  # noqa: E402
from adapterhub.compose.report import overlap  # noqa: E402

pytestmark = pytest.mark.models

SHAPES = {
    f"model.layers.{layer}.{name}": shape
    for layer in range(4)
    for name, shape in (("self_attn.q_proj", (24, 16)), ("mlp.down_proj", (16, 32)))
}
Q = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(4)]
DOWN = [f"model.layers.{layer}.mlp.down_proj" for layer in range(4)]
SCALES = {"layers.0-1": 0.5, "mlp": 0.0, "layers.3.self_attn": -2.0}
# Of a member that weighs 0.8, by hand.
BY_HAND = {Q[0]: 0.4, Q[1]: 0.4, Q[2]: 0.8, Q[3]: -1.6, **dict.fromkeys(DOWN, 0.0)}


@pytest.fixture
def members(adapter: Callable[..., Member]) -> list[Member]:
    one = adapter("acme/one", seed=1, shapes=SHAPES, weight=0.8)
    other = adapter("acme/two", seed=2, rank=3, shapes={Q[1]: (24, 16), DOWN[2]: (16, 32)})
    return [replace(one, scales=dict(SCALES)), other]


def planned(members: Sequence[Member], strategy: str = "linear", **more: Any) -> Plan:
    return make_plan(
        [outline(member) for member in members], strategy=catalog().strategies[strategy], **more
    )


def dense(folder: Path, scaling: float) -> dict[str, Any]:
    """Module -> scaling * B A in float64; the adapters here have alpha = 2 r."""
    state = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, A in state.items():
        if ".lora_A." in name:
            module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
            B = state[name.replace("lora_A", "lora_B")]
            found[module] = scaling * B.double() @ A.double()
    return found


def test_a_part_carries_what_its_member_weighs_there(members: Sequence[Member]) -> None:
    plan = planned(members)
    found = {step.module: {p.member: p.weight for p in step.parts} for step in plan.steps}
    assert found == {
        Q[0]: {0: pytest.approx(0.4)},
        Q[1]: {0: pytest.approx(0.4), 1: 1.0},
        Q[2]: {0: 0.8},
        Q[3]: {0: pytest.approx(-1.6)},
        DOWN[2]: {1: 1.0},
    }
    assert {step.module: step.rank for step in plan.steps}[DOWN[2]] == 3
    assert (plan.shared, plan.rank) == (1, 7)
    assert plan.modules(1) == {Q[1], DOWN[2]}
    assert [term.scales for term in plan.terms] == [SCALES, {}]


def largest(delta: Any, count: int) -> Any:
    order = delta.abs().flatten().argsort(descending=True)[:count]
    kept = torch.zeros(delta.numel(), dtype=torch.float64)
    kept[order] = delta.flatten()[order]
    return kept.view_as(delta)


def added(deltas: Sequence[Any]) -> Any:
    return torch.stack(list(deltas)).sum(0)


def elected(deltas: Sequence[Any]) -> Any:
    """TIES (arXiv 2306.01708) with a density of 0.5."""
    stacked = torch.stack([largest(delta, round(0.5 * delta.numel())) for delta in deltas])
    agree = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


DEFINITIONS: dict[str, tuple[Callable[[Sequence[Any]], Any], dict[str, Any]]] = {
    "linear": (added, {}),
    "svd": (added, {"rank": 3}),
    "ties": (elected, {"rank": 16, "options": {"density": 0.5}}),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_what_is_merged_is_the_dense_result_at_those_weights(
    name: str, members: Sequence[Member], tmp_path: Path
) -> None:
    define, how = DEFINITIONS[name]
    plan = planned(members, name, **how)
    result = merge(members, plan, tmp_path / "out")
    merged = dense(result.folder, 1.0)
    one = {m: BY_HAND[m] * d for m, d in dense(members[0].folder.path, 2.0).items()}
    two = dense(members[1].folder.path, 2.0)
    taking_part = {m: [d] for m, d in one.items() if BY_HAND[m]}
    for module, delta in two.items():
        taking_part.setdefault(module, []).append(delta)
    assert merged.keys() == taking_part.keys()
    error = exact = 0.0
    for module, deltas in taking_part.items():
        wanted, whole = define(deltas), added(deltas)
        rank = how.get("rank", 99)
        least = float(torch.linalg.svdvals(wanted)[rank:].norm())
        assert float((merged[module] - wanted).norm()) <= least * 1.001 + 1e-6 * float(
            wanted.norm()
        )
        error += float((merged[module] - whole).square().sum())
        exact += float(whole.square().sum())
    # What is reported is the distance from the sum at these weights.
    assert result.relative_error == pytest.approx((error / exact) ** 0.5, rel=1e-5, abs=1e-6)


def test_figures_of_overlap_are_at_those_weights(members: Sequence[Member]) -> None:
    found = overlap(members, planned(members))
    one = dense(members[0].folder.path, 2.0)
    wanted = sum(float((BY_HAND[m] * d).square().sum()) for m, d in one.items()) ** 0.5
    assert found.norms[0] == pytest.approx(wanted, rel=1e-6)
    assert (found.shared, found.modules) == (1, 5)
    relation = relate(members, [outline(member) for member in members])
    assert relation is not None
    assert relation.norms == pytest.approx(found.norms)
    assert {module.module for module in relation.modules} == {*Q, DOWN[2]}


def test_a_result_remembers_what_was_scaled(members: Sequence[Member], tmp_path: Path) -> None:
    folder = merge(members, planned(members), tmp_path / "out").folder
    parents = read_folder(folder).manifest.parents
    assert [parent.scales for parent in parents] == [SCALES, None]
    assert "| adapter | weight | scaled | sha256" in (folder / "README.md").read_text()
    assert "layers.0-1 x 0.5, mlp x 0" in (folder / "README.md").read_text()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert DOWN[0] not in json.dumps(config["target_modules"])


def test_a_pinned_composition_comes_back_scaled_and_to_the_same_bytes(
    members: Sequence[Member], tmp_path: Path
) -> None:
    path = write_pinned(tmp_path / "one.toml", pin(members, planned(members)))
    pinned = decode_composition(path.read_bytes())
    again = list(reopen(pinned, lambda term: read_folder(tmp_path / term.ref)))
    assert again == members
    write_pinned(tmp_path / "two.toml", pin(again, planned(again)))
    assert (tmp_path / "two.toml").read_bytes() == path.read_bytes()
    weights = [
        (merge(those, planned(those), tmp_path / name).folder / "adapter_model.safetensors")
        for name, those in (("a", members), ("b", again))
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("scales", "fact"),
    [
        ({"mpl": 0.5}, "mpl is about no module of acme/one"),
        ({"*": 0.0}, "every module of acme/one is scaled by 0"),
    ],
)
@pytest.mark.parametrize("decide", [make_plan, settle, arrange])
def test_scales_about_nothing_are_refused_before_anything_is_read(
    decide: Callable[..., object],
    scales: Mapping[str, float],
    fact: str,
    members: Sequence[Member],
) -> None:
    scaled = [replace(members[0], scales=scales), members[1]]
    with pytest.raises(UsageError, match=fact) as caught:
        decide([outline(m) for m in scaled], strategy=catalog().strategies["linear"])
    assert caught.value.hint


def test_what_is_attached_alone_is_asked_for_its_modules_too(
    adapter: Callable[..., Member],
) -> None:
    """Behind a first patch that is no delta, the file still tells which modules there are."""
    bias = {"base_model.model." + Q[0] + ".lora_B.bias": torch.zeros(24)}
    member = adapter("acme/biased", shapes=SHAPES, extra={"lora_bias": True}, tensors=bias)
    found = outline(replace(member, scales={"mlp": 0.0}))
    assert found.unmergeable
    assert set(found.modules or ()) == set(SHAPES)
    linear = catalog().strategies["linear"]
    settle([found, outline(adapter("acme/b", seed=5))], strategy=linear)
    with pytest.raises(UsageError, match="mpl is about no module of acme/biased"):
        settle([replace(found, scales={"mpl": 0.0})], strategy=linear)
    with pytest.raises(CapabilityError, match="acme/biased is a lora adapter, and lora gives no"):
        settle([replace(found, scalable=False)], strategy=linear)
