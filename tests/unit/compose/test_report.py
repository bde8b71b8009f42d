"""The facts of a dry run, where they are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.plugin.catalog import catalog

torch = pytest.importorskip("torch")

from adapterhub.compose.executor import merge  # noqa: E402
from adapterhub.compose.members import Member, outline  # noqa: E402
from adapterhub.compose.plan import Plan, make_plan  # noqa: E402
from adapterhub.compose.report import Overlap, overlap  # noqa: E402

pytestmark = pytest.mark.models

Q = "model.layers.0.self_attn.q_proj"


def planned(members: list[Member], strategy: str = "linear", rank: int | None = None) -> Plan:
    outlines = [outline(member) for member in members]
    return make_plan(outlines, strategy=catalog().strategies[strategy], rank=rank)


def facts(members: list[Member], *, rank: int | None = None) -> Overlap:
    return overlap(members, planned(members), rank=rank)


def pair(A: Any, B: Any) -> dict[str, Any]:
    return {
        f"base_model.model.{Q}.lora_A.weight": A.contiguous(),
        f"base_model.model.{Q}.lora_B.weight": B.contiguous(),
    }


def test_an_adapter_and_its_double_overlap_wholly_and_never_disagree(
    adapter: Callable[..., Member],
) -> None:
    found = facts([adapter("a", seed=1), adapter("b", seed=1, weight=2.0)])
    assert found.subspace == pytest.approx(1.0)
    assert found.sign_conflicts == 0.0
    assert found.norms[1] == pytest.approx(2.0 * found.norms[0])
    assert found.kept == pytest.approx(1.0)
    assert (found.shared, found.modules, found.rank) == (2, 2, 4)


def test_an_adapter_and_its_opposite_disagree_everywhere(adapter: Callable[..., Member]) -> None:
    found = facts([adapter("a", seed=1), adapter("b", seed=1, weight=-0.5)])
    assert found.sign_conflicts == 1.0


def test_adapters_in_orthogonal_subspaces_do_not_overlap(adapter: Callable[..., Member]) -> None:
    columns, rows = torch.eye(16), torch.eye(24)
    shapes = {Q: (24, 16)}
    one = adapter("a", shapes=shapes, tensors=pair(columns[:4], rows[:, :4]))
    two = adapter("b", shapes=shapes, tensors=pair(columns[4:8], rows[:, 4:8]))
    found = facts([one, two], rank=4)
    assert found.subspace == pytest.approx(0.0)
    # Eight equal singular values, of which four are kept.
    assert found.kept == pytest.approx(0.5)
    assert found.error == pytest.approx(0.5**0.5)


def test_unrelated_adapters_disagree_on_about_half_of_the_signs(
    adapter: Callable[..., Member],
) -> None:
    found = facts([adapter("a", seed=1), adapter("b", seed=2)])
    assert found.sign_conflicts == pytest.approx(0.5, abs=0.05)
    assert found.subspace is not None
    assert 0.0 < found.subspace < 0.5


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_foretold_is_the_error_svd_then_makes(
    adapter: Callable[..., Member], tmp_path: Path, rank: int
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2, weight=0.5, shapes={Q: (24, 16)})]
    result = merge(members, planned(members, "svd", rank), tmp_path / "out")
    assert facts(members, rank=rank).error == pytest.approx(result.relative_error, rel=1e-5)


def test_adapters_that_share_no_module_have_no_overlap_to_speak_of(
    adapter: Callable[..., Member],
) -> None:
    one = adapter("a", shapes={Q: (24, 16)})
    two = adapter("b", shapes={"model.layers.1.self_attn.q_proj": (24, 16)})
    found = facts([one, two])
    assert (found.subspace, found.sign_conflicts, found.shared) == (None, None, 0)


def test_an_untrained_adapter_spans_nothing(adapter: Callable[..., Member]) -> None:
    fresh = adapter("b", shapes={Q: (24, 16)}, tensors=pair(torch.randn(4, 16), torch.zeros(24, 4)))
    found = facts([adapter("a", shapes={Q: (24, 16)}), fresh])
    assert found.subspace is None
    assert found.norms[1] == 0.0
    assert found.kept == pytest.approx(1.0)
