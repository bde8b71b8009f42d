"""What is said of two deltas is what the dense matrices would say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from adapterhub.compose.difference import (  # noqa: E402
    compare,
    effective_rank,
    principal_angles,
)
from adapterhub.compose.members import open_member  # noqa: E402
from adapterhub.compose.pairs import NEAR_DUPLICATE  # noqa: E402
from adapterhub.errors import CapabilityError  # noqa: E402
from adapterhub.hub.folder import read_folder  # noqa: E402
from tests.adapter_files import f32, write_lora  # noqa: E402
from tests.unit.compose.conftest import DOWN, Q  # noqa: E402

pytestmark = pytest.mark.models
PREFIX = "base_model.model."


def stored(member: Any) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(member.folder.weights_path))


def dense(member: Any, module: str, scaling: float = 2.0) -> Any:
    state = stored(member)
    A = state[f"{PREFIX}{module}.lora_A.weight"].double()
    B = state[f"{PREFIX}{module}.lora_B.weight"].double()
    return scaling * B @ A


def test_the_figures_are_those_of_the_dense_deltas(adapter: Callable[..., Any]) -> None:
    one, other = adapter("a", seed=1), adapter("b", seed=2, rank=3)
    found = {item.module: item for item in compare(one, other).modules}
    for module in (Q, DOWN):
        left, right = dense(one, module), dense(other, module)
        item = found[module]
        norms = float(left.norm()), float(right.norm())
        assert item.norms == pytest.approx(norms)
        assert item.absolute == pytest.approx(float((left - right).norm()))
        assert item.relative == pytest.approx(item.absolute / max(norms))
        assert item.cosine == pytest.approx(float((left * right).sum()) / norms[0] / norms[1])
        U, V = (torch.linalg.svd(side)[0][:, :k] for side, k in ((left, 4), (right, 3)))
        cosines = torch.linalg.svdvals(U.mT @ V)
        assert item.angles == pytest.approx(torch.rad2deg(torch.acos(cosines)).tolist())
        shares = torch.linalg.svdvals(left)[:4] / torch.linalg.svdvals(left)[:4].sum()
        entropy = -float((shares * shares.log()).sum())
        assert item.effective_ranks[0] == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize(
    ("values", "rank"), [([1.0, 1.0, 1.0], 3.0), ([5.0, 0.0], 1.0), ([0.0, 0.0], 0.0)]
)
def test_the_effective_rank_counts_what_matters(values: list[float], rank: float) -> None:
    assert effective_rank(torch.tensor(values).double()) == pytest.approx(rank)


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 0.5, 30.0, 60.0, 90.0])
def test_an_angle_is_exact_however_small(degrees: float) -> None:
    turn = math.radians(degrees)
    one = torch.eye(4, 2).double()
    other = torch.zeros(4, 1).double()
    other[0], other[2] = math.cos(turn), math.sin(turn)
    assert principal_angles(one, other) == pytest.approx((degrees,), rel=1e-9, abs=1e-12)
    assert principal_angles(other, one) == pytest.approx((degrees,), rel=1e-9, abs=1e-12)


def test_the_same_delta_by_other_factors_is_no_difference(adapter: Callable[..., Any]) -> None:
    one = adapter("a", seed=1)
    turned = {}
    mixing = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
    for name, tensor in stored(one).items():
        turned[name] = mixing @ tensor if "lora_A" in name else tensor @ mixing.mT
    found = compare(one, adapter("b", tensors=turned))
    assert found.relative < 1e-6
    assert found.near_duplicate


def test_a_copy_in_bfloat16_is_a_near_duplicate(adapter: Callable[..., Any]) -> None:
    found = compare(adapter("a", seed=1), adapter("b", seed=1, dtype="bfloat16"))
    assert 0.0 < found.relative < NEAR_DUPLICATE
    assert found.near_duplicate


def test_another_adapter_is_none(adapter: Callable[..., Any]) -> None:
    assert not compare(adapter("a", seed=1), adapter("b", seed=2)).near_duplicate


def test_another_scaling_is_another_adapter(adapter: Callable[..., Any]) -> None:
    found = compare(adapter("a", seed=1), adapter("b", seed=1, extra={"lora_alpha": 800}))
    assert found.relative == pytest.approx(0.99)
    assert [item.cosine for item in found.modules] == pytest.approx([1.0, 1.0])


def test_the_most_different_module_comes_first(adapter: Callable[..., Any]) -> None:
    one = adapter("a", seed=1)
    state = stored(one)
    for module, change in ((Q, 0.01), (DOWN, 0.5)):
        state[f"{PREFIX}{module}.lora_B.weight"] *= 1.0 + change
    found = compare(one, adapter("b", tensors=state))
    assert [item.module for item in found.modules] == [DOWN, Q]


def test_a_module_that_one_side_lacks_differs_by_all_it_has(adapter: Callable[..., Any]) -> None:
    found = compare(adapter("a", seed=1), adapter("b", seed=1, shapes={Q: (24, 16)}))
    missing = found.modules[0]
    assert (missing.module, missing.relative, missing.cosine) == (DOWN, 1.0, None)
    assert missing.norms[0] == pytest.approx(missing.absolute)
    assert missing.norms[1] is None
    assert not found.near_duplicate


def test_an_adapter_that_is_more_than_its_deltas_is_named(adapter: Callable[..., Any]) -> None:
    head = {f"{PREFIX}lm_head.weight": torch.ones(8, 16)}
    one = adapter("a", seed=1, extra={"modules_to_save": ["lm_head"]}, tensors=head)
    with pytest.raises(CapabilityError, match="a: this adapter uses fully trained modules"):
        compare(one, adapter("b", seed=1))


def test_what_is_no_low_rank_delta_is_left_out_by_name(tmp_path: Path) -> None:
    def prompt(ref: str, value: float) -> Any:
        config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "token_dim": 16}
        tensors = {"prompt_embeddings": f32((2, 16), value)}
        write_lora(tmp_path / ref, config=config, tensors=tensors, base_model_name_or_path="a/b")
        return open_member(ref, read_folder(tmp_path / ref))

    found = compare(prompt("a", 1.5), prompt("b", 2.0))
    assert (found.modules, found.near_duplicate) == ((), False)
    assert found.left_out[0][0] == ""
    assert "it has a prompt for the whole model" in found.left_out[0][1]


def test_other_shapes_and_broken_numbers_are_left_out(adapter: Callable[..., Any]) -> None:
    broken = {f"{PREFIX}{Q}.lora_A.weight": torch.full((4, 16), float("nan"))}
    one = adapter("a", seed=1, tensors=broken)
    other = adapter("b", seed=1, shapes={Q: (24, 16), DOWN: (16, 48)})
    found = compare(one, other)
    assert found.modules == ()
    reasons = dict(found.left_out)
    assert "NaN" in reasons[Q]
    assert "(16, 32) in one, (16, 48) in the other" in reasons[DOWN]


def test_a_zero_delta_has_no_direction(adapter: Callable[..., Any]) -> None:
    zero = {f"{PREFIX}{Q}.lora_B.weight": torch.zeros(24, 4)}
    one = adapter("a", seed=1, shapes={Q: (24, 16)}, tensors=zero)
    found = compare(one, adapter("b", seed=2, shapes={Q: (24, 16)})).modules[0]
    assert (found.cosine, found.angles, found.effective_ranks[0]) == (None, (), 0.0)
