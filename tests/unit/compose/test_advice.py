"""What is advised for figures, and for adapters made so that the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from adapterhub.compose.advice import CORE_SPACE, KNOTS, SVD, TIES, Advice, Figures, advise
from adapterhub.compose.pairs import PairFigures, place_of

Q = "model.layers.0.self_attn.q_proj"
APART = PairFigures(
    one=0, other=1, modules=2, written=0.05, read=0.05, conflicts=0.5, disputed=0.5, cosine=0.01,
    relative=1.4, norms=(1.0, 1.0), effective_ranks=(4.0, 4.0),
)  # fmt: skip
TWO = Figures(
    names=("a", "b"), weights=(1.0, 1.0), norms=(1.0, 1.0), pairs=(APART,), rank=16, kept_rank=15,
    dense_rank=100,
)  # fmt: skip


def of(*pairs: PairFigures, **changes: Any) -> Advice:
    return advise(replace(TWO, pairs=pairs, **changes))


def test_nearly_orthogonal_adapters_are_trimmed_between_their_spans() -> None:
    for kept in (15, 4):
        found = of(APART, kept_rank=kept)
        assert (found.strategy, found.rank, found.weights) == (CORE_SPACE, None, (1.0, 1.0))
        assert "nearly orthogonal (overlap 0.05, cosine +0.01)" in found.reasons[0]
        assert found.options == {}
    assert of(APART, rank=120, kept_rank=70).options == {"keep": 0.99}


def test_adapters_that_share_no_module_are_added_exactly() -> None:
    found = of()
    assert (found.strategy, found.rank, found.worst) == ("linear", None, None)
    assert found.reasons[0].startswith("a and b share no module")


def test_a_sum_larger_than_the_matrix_is_cut_to_the_rank_that_keeps_99_percent() -> None:
    found = of(rank=120, kept_rank=70)
    assert (found.strategy, found.rank) == (SVD, 70)
    assert "rank 120 is past 100" in found.reasons[1]


def test_adapters_that_agree_are_cut_where_that_saves_something() -> None:
    agree = replace(APART, written=0.6, read=0.6, disputed=0.1, cosine=0.7)
    assert (of(agree, kept_rank=9).strategy, of(agree, kept_rank=9).rank) == (SVD, 9)
    assert of(agree, kept_rank=15).strategy == "linear"


@pytest.mark.parametrize(
    ("written", "read", "strategy"),
    [(0.6, 0.6, CORE_SPACE), (0.9, 0.1, KNOTS), (0.1, 0.9, TIES)],
)
def test_where_they_share_directions_and_disagree_decides_how_signs_are_elected(
    written: float, read: float, strategy: str
) -> None:
    found = of(replace(APART, written=written, read=read, disputed=0.48))
    assert found.strategy == strategy
    assert found.rank == (16 if strategy == TIES else None)
    assert "48% of what they change there, by weight, pulls opposite ways" in found.reasons[0]


def test_a_consensus_of_more_ranks_than_a_matrix_has_use_for_is_limited() -> None:
    contested = replace(APART, written=0.6, read=0.6)
    assert of(contested, rank=120).options == {"keep": 0.99}
    assert of(contested).options == {}


def test_norms_far_apart_are_brought_to_their_geometric_mean() -> None:
    found = of(APART, norms=(8.0, 0.5), weights=(1.0, 0.5))
    assert [w * n for w, n in zip(found.weights, (8.0, 1.0), strict=True)] == [2.0, 2.0]
    assert "16.0 times" in found.reasons[-1]
    assert "suggestion" in found.reasons[-1]
    assert of(APART, norms=(2.9, 1.0)).weights == (1.0, 1.0)


def test_the_worst_pair_decides_and_is_named() -> None:
    worst = replace(APART, one=1, other=2, written=0.6, read=0.6)
    pairs = (APART, replace(APART, other=2), worst)
    found = of(*pairs, names=("a", "b", "c"), weights=(1.0,) * 3, norms=(1.0,) * 3)
    assert (found.strategy, found.worst) == (CORE_SPACE, (1, 2))
    assert found.reasons[0].startswith("b and c, the worst pair, overlap")


def test_what_is_no_delta_is_attached_side_by_side() -> None:
    found = of(APART, beyond=("b",))
    assert found.strategy == "linear"
    assert found.reasons[0].startswith("b is more than low-rank deltas")


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("model.layers.12.mlp.up_proj", (12, "mlp.up_proj")),
        ("transformer.h.0.attn.c_attn", (0, "attn.c_attn")),
        ("lm_head", (None, "lm_head")),
    ],
)
def test_a_module_has_a_layer_and_a_kind(module: str, place: tuple[int | None, str]) -> None:
    assert place_of(module) == place


@pytest.mark.models
class TestConstructed:
    """Adapters whose relation is known, from their tensors to the advice."""

    @staticmethod
    def advised(members: list[Any]) -> tuple[Any, Advice]:
        pytest.importorskip("torch")
        from adapterhub.compose.compatibility import advice_for, nothing_left, relate
        from adapterhub.compose.members import outline

        outlines = [outline(member) for member in members]
        relation = relate(members, outlines)
        assert relation is not None
        assert nothing_left(relation) is None
        return relation, advice_for(outlines, relation)

    @staticmethod
    def pair(A: Any, B: Any) -> dict[str, Any]:
        return {
            f"base_model.model.{Q}.lora_A.weight": A.contiguous(),
            f"base_model.model.{Q}.lora_B.weight": B.contiguous(),
        }

    def test_orthogonal(self, adapter: Callable[..., Any]) -> None:
        torch = pytest.importorskip("torch")
        shapes, columns, rows = {Q: (24, 16)}, torch.eye(16), torch.eye(24)
        one = adapter("a", shapes=shapes, tensors=self.pair(columns[:4], rows[:, :4]))
        two = adapter("b", shapes=shapes, tensors=self.pair(columns[4:8], rows[:, 4:8]))
        relation, found = self.advised([one, two])
        assert (found.strategy, found.weights) == (CORE_SPACE, (1.0, 1.0))
        assert relation.pairs[0].overlap == pytest.approx(0.0)
        assert relation.pairs[0].cosine == pytest.approx(0.0)

    def test_duplicates(self, adapter: Callable[..., Any]) -> None:
        members = [adapter("a", seed=1), adapter("b", seed=1), adapter("c", seed=2)]
        relation, found = self.advised(members[:2])
        assert found.weights == (0.5, 0.5)
        assert "a and b differ by 0.00%, so one of them is enough" in found.reasons[-1]
        assert (found.strategy, found.rank) == (SVD, relation.kept_rank)
        assert relation.kept_rank <= 4
        assert self.advised(members)[1].weights == (0.5, 0.5, 1.0)

    def test_opposed(self, adapter: Callable[..., Any]) -> None:
        relation, found = self.advised([adapter("a", seed=1), adapter("b", seed=1, weight=-0.7)])
        assert relation.pairs[0].cosine == pytest.approx(-1.0)
        assert relation.pairs[0].disputed == pytest.approx(1.0)
        assert found.strategy == CORE_SPACE

    def test_opposites_leave_nothing(self, adapter: Callable[..., Any]) -> None:
        from adapterhub.compose.compatibility import nothing_left, relate
        from adapterhub.compose.members import outline

        members = [adapter("a", seed=1), adapter("b", seed=1, weight=-1.0)]
        relation = relate(members, [outline(member) for member in members])
        assert relation is not None
        left = nothing_left(relation)
        assert left is not None
        assert left.message == "a and b cancel each other: nothing is left of their sum"

    def test_every_obstacle_is_named_with_what_helps(self, adapter: Callable[..., Any]) -> None:
        from adapterhub.compose.compatibility import compare_bases, obstacles
        from adapterhub.compose.members import outline

        one, twin = adapter("a", seed=1), adapter("b", seed=1)
        other = adapter("c", seed=1, base="acme/other", shapes={Q: (24, 8)})
        members = [one, twin, other]
        outlines = [outline(member) for member in members]
        said = [item.message for item in obstacles(members, outlines, allow=())]
        assert said[0] == "a and b are the same adapter, byte for byte"
        assert [line.partition(" was made")[0] for line in said[1:3]] == ["a", "b"]
        assert said[3].startswith(f"{Q} is (24, 16) for a")
        assert len(said) == 4
        assert [item.fits for item in compare_bases(outlines)] == [True, False, False]

    def test_the_conversion_that_makes_two_bases_one_is_named(
        self, adapter: Callable[..., Any]
    ) -> None:
        from adapterhub.compose.compatibility import obstacles
        from adapterhub.compose.members import outline
        from adapterhub.domain.base import Fingerprint

        members = [adapter("a", seed=1), adapter("b", seed=2)]
        prints = [
            Fingerprint(layout="l", sketch="s", content=form, canonical="c", arrangement=form)
            for form in ("fused", "split")
        ]
        outlines = [
            replace(o, base=replace(o.base, fingerprint=print_))
            for o, print_ in zip(map(outline, members), prints, strict=True)
        ]
        [found] = obstacles(members, outlines, allow=())
        assert found.hint == "convert it: adapterhub convert a --layout split -o DIR"

    def test_different_norms_and_the_rank_of_the_balanced_sum(
        self, adapter: Callable[..., Any]
    ) -> None:
        members = [adapter("a", seed=1), adapter("b", seed=2, weight=0.01)]
        relation, found = self.advised(members)
        sizes = [abs(w) * n / m.weight for w, n, m in zip(
            found.weights, relation.norms, members, strict=True
        )]  # fmt: skip
        assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
        # As they are the weak one is lost in four ranks; balanced, both need theirs.
        assert relation.kept_rank > 4

    def test_near_duplicates_count_modules_that_one_of_them_lacks(
        self, adapter: Callable[..., Any]
    ) -> None:
        whole, part = adapter("a", seed=1), adapter("b", seed=1, shapes={Q: (24, 16)})
        relation, found = self.advised([whole, part])
        assert relation.pairs[0].relative > 0.01
        assert found.weights == (1.0, 1.0)

    def test_every_layer_has_a_row(self, adapter: Callable[..., Any]) -> None:
        from adapterhub.compose.pairs import by_layer

        shapes = {f"model.layers.{n}.self_attn.q_proj": (24, 16) for n in (0, 1, 10)}
        shapes["lm_head"] = (24, 16)
        pair = [adapter("a", seed=1, shapes=shapes), adapter("b", seed=2, shapes=shapes)]
        relation, _ = self.advised(pair)
        rows = by_layer(relation.modules, 0, 1)
        assert list(rows) == [0, 1, 10, None]
        squares = sum(row.norms[0] ** 2 for row in rows.values())
        assert squares == pytest.approx(relation.norms[0] ** 2)
