"""`linear` and `svd` against dense float64 arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from adapterhub.domain.patch import Affine
from adapterhub.errors import CapabilityError, MismatchError, UsageError
from adapterhub.plugin.catalog import catalog, load_target

torch = pytest.importorskip("torch")

from adapterhub_plugins.strategies.combine import linear, svd  # noqa: E402

pytestmark = pytest.mark.models

OUT, IN = 48, 40


def patch(seed: int, rank: int = 4, *, scaling: float = 2.0, dtype: Any = None) -> Affine:
    """Factors of the sizes that training gives: B an order of magnitude below A."""
    make = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, IN, generator=make) / 6
    B = torch.randn(OUT, rank, generator=make) / 100
    dtype = dtype or torch.float32
    return Affine(A=A.to(dtype), B=B.to(dtype), scaling=scaling)


def deficient(seed: int) -> Affine:
    """Stored as rank 6, truly of rank 2."""
    thin = patch(seed, 2)
    mix = torch.randn(6, 2, generator=torch.Generator().manual_seed(seed))
    return Affine(A=mix @ thin.A, B=thin.B @ torch.linalg.pinv(mix), scaling=thin.scaling)


def dense(patches: Sequence[Affine], weights: Sequence[float]) -> Any:
    """The weighted sum in float64, the plain way."""
    return sum(
        weight * p.scaling * p.B.double() @ p.A.double()
        for p, weight in zip(patches, weights, strict=True)
    )


def error(merged: Affine, exact: Any) -> float:
    difference = merged.scaling * merged.B.double() @ merged.A.double() - exact
    return float(difference.norm() / exact.norm())


CASES: dict[str, tuple[list[Affine], list[float]]] = {
    "two": ([patch(1), patch(2)], [1.0, 0.5]),
    "one": ([patch(1)], [0.7]),
    "mixed ranks and scalings": (
        [patch(1, 2, scaling=0.25), patch(2, 8, scaling=4.0), patch(3, 1, scaling=1 / 3)],
        [0.8, -1.3, 11.0],
    ),
    "a negative weight": ([patch(1), patch(2)], [1.0, -1.0]),
    "a weight of zero": ([patch(1), patch(2)], [1.0, 0.0]),
    "the same adapter twice": ([patch(1), patch(1)], [0.3, 0.9]),
    "rank-deficient": ([deficient(1), patch(2, 3)], [1.0, 1.0]),
    "more ranks than rows": ([patch(i, 16) for i in range(4)], [1.0, 2.0, -0.5, 0.1]),
    "bfloat16": ([patch(1, dtype=torch.bfloat16), patch(2, dtype=torch.bfloat16)], [1.0, 0.8]),
    "far apart in size": ([patch(1, scaling=1e-4), patch(2, scaling=1e3)], [1.0, 1.0]),
}
every_case = pytest.mark.parametrize(("patches", "weights"), CASES.values(), ids=CASES)


@every_case
def test_linear_is_the_exact_sum(patches: list[Affine], weights: list[float]) -> None:
    merged = linear(patches, weights, rank=None)
    assert merged.scaling == 1.0
    assert merged.low_rank_only
    assert merged.rank == sum(p.rank for p in patches)
    assert error(merged, dense(patches, weights)) < 1e-6


@every_case
@pytest.mark.parametrize("rank", [None, 1, 3, 6, 1000])
def test_svd_is_as_good_as_any_delta_of_its_rank(
    patches: list[Affine], weights: list[float], rank: int | None
) -> None:
    merged = svd(patches, weights, rank=rank)
    exact = dense(patches, weights)
    total = min(sum(p.rank for p in patches), OUT, IN)
    expected = min(rank or max(p.rank for p in patches), total)
    assert merged.rank == expected
    assert merged.scaling == 1.0
    lost = torch.linalg.svdvals(exact)[expected:]
    optimum = float(lost.norm() / exact.norm())
    assert error(merged, exact) <= optimum + 1e-6


@pytest.mark.parametrize("apart", [1e-1, 1e-3, 1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["sum", "difference"])
def test_svd_is_the_best_of_adapters_that_are_nearly_one(apart: float, sign: float) -> None:
    """Their factors' Grams are as good as singular, and a difference cancels all but `apart`."""
    one, other = (patch(seed, dtype=torch.float64) for seed in (1, 2))
    near = Affine(A=one.A + apart * other.A, B=one.B + apart * other.B, scaling=one.scaling)
    exact = dense([one, near], [1.0, sign])
    values = torch.linalg.svdvals(exact)
    merged = svd([one, near], [1.0, sign], rank=3)
    off = (merged.B.double() @ merged.A.double() - exact).norm()
    best = values[3:].norm()
    # What cancels is known to the rounding of what came in.
    assert float(off - best) <= 1e-6 * float(exact.norm()) + 1e-13 * float(dense([one], [1]).norm())


def test_svd_at_the_full_rank_is_the_exact_sum() -> None:
    patches, weights = CASES["mixed ranks and scalings"]
    assert error(svd(patches, weights, rank=11), dense(patches, weights)) < 1e-6


def test_svd_gives_both_sides_the_same_singular_values() -> None:
    merged = svd([patch(1), patch(2)], [1.0, 0.5], rank=3)
    torch.testing.assert_close(
        torch.linalg.svdvals(merged.A), torch.linalg.svdvals(merged.B), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("combine", [linear, svd])
def test_the_order_of_the_adapters_does_not_matter(combine: Any) -> None:
    patches, weights = CASES["mixed ranks and scalings"]
    ahead = combine(patches, weights, rank=None)
    back = combine(patches[::-1], weights[::-1], rank=None)
    assert error(back, ahead.B.double() @ ahead.A.double()) < 1e-6


@pytest.mark.parametrize("combine", [linear, svd])
def test_the_same_adapters_give_the_same_bytes(combine: Any) -> None:
    patches, weights = CASES["mixed ranks and scalings"]
    first, again = (combine(patches, weights, rank=None) for _ in range(2))
    assert torch.equal(first.A, again.A)
    assert torch.equal(first.B, again.B)


@pytest.mark.parametrize("combine", [linear, svd])
def test_adapters_that_cancel_leave_zero_and_not_noise(combine: Any) -> None:
    merged = combine([patch(1), patch(1)], [1.0, -1.0], rank=None)
    assert float((merged.B @ merged.A).norm()) < 1e-7 * float(dense([patch(1)], [1.0]).norm())
    assert torch.isfinite(merged.A).all()


@pytest.mark.parametrize("combine", [linear, svd])
def test_an_untrained_adapter_takes_part_as_zero(combine: Any) -> None:
    fresh = Affine(A=patch(2).A, B=torch.zeros(OUT, 4), scaling=2.0)
    merged = combine([patch(1), fresh], [1.0, 1.0], rank=None)
    assert error(merged, dense([patch(1)], [1.0])) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear_loses_nothing_in_half_precision_when_scalings_are_powers_of_two(dtype: Any) -> None:
    patches = [patch(1, dtype=dtype), patch(2, dtype=dtype, scaling=0.5)]
    merged = linear(patches, [1.0, -2.0], rank=None)
    stored = Affine(A=merged.A.to(dtype), B=merged.B.to(dtype))
    assert error(stored, dense(patches, [1.0, -2.0])) < 1e-6


def test_tiny_deltas_survive_float16() -> None:
    # As stored, these entries of B would be subnormal: half of their bits would be gone.
    small = patch(1)
    small = Affine(A=small.A, B=small.B * 1e-4, scaling=0.3)
    merged = linear([small], [1.0], rank=None)
    stored = Affine(A=merged.A.half(), B=merged.B.half())
    assert error(stored, dense([small], [1.0])) < 1e-3


def test_float64_adapters_are_combined_in_float64() -> None:
    patches = [patch(1, dtype=torch.float64), patch(2)]
    for merged in (linear(patches, [1.0, 0.3], rank=None), svd(patches, [1.0, 0.3], rank=8)):
        assert merged.A.dtype == torch.float64
        assert error(merged, dense(patches, [1.0, 0.3])) < 1e-13


def test_linear_refuses_a_rank_and_points_at_svd() -> None:
    with pytest.raises(UsageError) as caught:
        linear([patch(1)], [1.0], rank=2)
    assert "--strategy svd --rank 2" in str(caught.value.hint)


@pytest.mark.parametrize("rank", [0, -1])
def test_svd_refuses_a_rank_below_one(rank: int) -> None:
    with pytest.raises(UsageError, match=f"rank {rank}"):
        svd([patch(1)], [1.0], rank=rank)


@pytest.mark.parametrize("combine", [linear, svd])
@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (Affine(A=patch(1).A, B=patch(1).B, bias=torch.ones(OUT)), "bias"),
        (Affine(A=patch(1).A, B=patch(1).B, row_scale=torch.ones(OUT)), "row_scale"),
        (Affine(column_scale=torch.ones(IN)), "no low-rank part"),
        (Affine(A=torch.ones(2, 3, 3, 3), B=torch.ones(4, 2, 1, 1)), "convolution"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_a_low_rank_delta_is_refused_by_name(
    combine: Any, bad: Affine, named: str
) -> None:
    with pytest.raises(CapabilityError, match=named):
        combine([patch(2), bad], [1.0, 1.0], rank=None)


@pytest.mark.parametrize("combine", [linear, svd])
def test_deltas_of_different_shapes_are_refused_with_their_shapes(combine: Any) -> None:
    other = Affine(A=torch.ones(2, 7), B=torch.ones(OUT, 2))
    with pytest.raises(MismatchError, match=r"\(48, 7\) and \(48, 40\)"):
        combine([patch(1), other], [1.0, 1.0], rank=None)


@pytest.mark.parametrize("combine", [linear, svd])
def test_nothing_to_combine_is_refused(combine: Any) -> None:
    with pytest.raises(UsageError, match="0 patches"):
        combine([], [], rank=None)


@pytest.mark.parametrize("name", ["linear", "svd"])
def test_the_catalog_leads_to_the_strategies(name: str) -> None:
    record = catalog().strategies[name]
    assert load_target(record.target) is {"linear": linear, "svd": svd}[name]
    assert record.exact == (name == "linear")
