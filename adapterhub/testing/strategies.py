"""The promises a strategy makes about low-rank deltas, as tests that a plugin inherits.

    class TestMedian(StrategyConformance):
        strategy = "median"

For strategies that make one patch of several; one that works attached only has none to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from adapterhub.domain.method import Strategy
from adapterhub.domain.patch import Affine
from adapterhub.domain.protocols import Combine
from adapterhub.errors import AdapterhubError, CapabilityError, MismatchError, UsageError
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.testing.declaring import check_declared
from adapterhub.testing.ground import equal

OUT, IN = 24, 20


class StrategyConformance:
    """Set `strategy`."""

    strategy: ClassVar[str]

    @property
    def record(self) -> Strategy:
        return catalog().strategies[self.strategy]

    def combine(
        self,
        patches: Sequence[Affine],
        weights: Sequence[float],
        *,
        rank: int | None = None,
        **options: Any,
    ) -> Affine:
        made: Combine = load_target(self.record.target)
        return made(patches, weights, rank=rank, **options)

    def test_it_is_found_by_its_entry_point(self) -> None:
        owner = catalog().strategies.entries[self.strategy].owner
        assert any(a.origin == owner and a.problem is None for a in catalog().admissions)

    def test_declaring_it_imports_no_torch(self) -> None:
        check_declared("strategies", self.strategy)

    def test_it_answers_with_one_low_rank_delta(self) -> None:
        merged = self.combine([low_rank(1), low_rank(2)], [1.0, 0.5])
        assert merged.low_rank_only
        assert tuple(merged.B.shape) == (OUT, merged.rank)
        assert tuple(merged.A.shape) == (merged.rank, IN)
        assert merged.A.isfinite().all()
        assert merged.B.isfinite().all()

    def test_weights_of_one_and_zero_give_the_first(self) -> None:
        first = low_rank(1)
        # What keeps only a share of each delta's entries keeps all of them here.
        every: dict[str, Any] = {"density": 1.0} if "density" in self.record.options else {}
        merged = self.combine([first, low_rank(2)], [1.0, 0.0], **every)
        assert error(merged, dense(first)) < 1e-5

    def test_an_exact_one_is_the_weighted_sum(self) -> None:
        patches, weights = [low_rank(1), low_rank(2, 3), low_rank(3, 1)], [1.0, -0.5, 2.0]
        exact = sum(w * dense(p) for p, w in zip(patches, weights, strict=True))
        if self.record.exact:
            assert error(self.combine(patches, weights), exact) < 1e-5

    def test_the_order_means_nothing(self) -> None:
        patches, weights = [low_rank(1), low_rank(2, 3)], [1.0, 0.5]
        ahead = self.combine(patches, weights)
        back = self.combine(patches[::-1], weights[::-1])
        assert error(back, dense(ahead)) < 1e-5

    def test_the_same_deltas_give_the_same_bytes(self) -> None:
        patches, weights = [low_rank(1), low_rank(2)], [1.0, 0.5]
        first, again = (self.combine(patches, weights) for _ in range(2))
        assert equal(first.A, again.A)
        assert equal(first.B, again.B)

    def test_it_leaves_what_it_was_given_alone(self) -> None:
        given, kept = [low_rank(1), low_rank(2)], [low_rank(1), low_rank(2)]
        self.combine(given, [1.0, 0.5])
        assert all(equal(a.A, b.A) and equal(a.B, b.B) for a, b in zip(given, kept, strict=True))

    def test_an_option_that_it_does_not_name_is_not_taken(self) -> None:
        with pytest.raises(TypeError):
            self.combine([low_rank(1), low_rank(2)], [1.0, 0.5], no_such_option=1.0)

    def test_the_same_seed_gives_the_same_bytes_and_another_one_others(self) -> None:
        if "seed" not in self.record.options:
            return
        patches, weights = [low_rank(1), low_rank(2)], [1.0, 0.5]
        first, again, other = (self.combine(patches, weights, seed=seed) for seed in (3, 3, 4))
        assert equal(first.A, again.A)
        assert equal(first.B, again.B)
        assert error(other, dense(first)) > 1e-5

    @pytest.mark.parametrize("rank", [1, 3])
    def test_a_rank_is_kept_or_refused(self, rank: int) -> None:
        try:
            merged = self.combine([low_rank(1), low_rank(2)], [1.0, 0.5], rank=rank)
        except UsageError:
            return
        assert merged.rank <= rank, f"rank {merged.rank} where {rank} was asked for"

    def test_deltas_of_different_shapes_are_refused(self) -> None:
        with pytest.raises(MismatchError):
            self.combine([low_rank(1), low_rank(2, out=OUT + 1)], [1.0, 1.0])

    def test_nothing_to_combine_is_refused(self) -> None:
        with pytest.raises(AdapterhubError):
            self.combine([], [])

    def test_what_is_more_than_a_delta_is_refused(self) -> None:
        import torch

        scaled = Affine(A=low_rank(1).A, B=low_rank(1).B, row_scale=torch.ones(OUT))
        with pytest.raises(CapabilityError):
            self.combine([low_rank(1), scaled], [1.0, 1.0])


def low_rank(seed: int, rank: int = 2, *, out: int = OUT) -> Affine:
    """Factors of the sizes that training gives: B an order of magnitude below A."""
    import torch

    make = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, IN, generator=make) / 6
    B = torch.randn(out, rank, generator=make) / 100
    return Affine(A=A, B=B, scaling=2.0)


def dense(patch: Affine) -> Any:
    return patch.scaling * patch.B.double() @ patch.A.double()


def error(merged: Affine, exact: Any) -> float:
    return float((dense(merged) - exact).norm() / exact.norm())
