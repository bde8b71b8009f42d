"""What drops entries, against the papers' definitions written out entry by entry in float64, and
against the best approximation of their result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adapterhub.domain.composition import NEVER_MERGED
from adapterhub.domain.patch import Affine
from adapterhub.errors import UsageError
from adapterhub.plugin.catalog import catalog, load_target

torch = pytest.importorskip("torch")

from adapterhub_plugins.strategies import masks  # noqa: E402
from adapterhub_plugins.strategies.cholesky import orthonormal  # noqa: E402
from adapterhub_plugins.strategies.truncate import truncated  # noqa: E402

pytestmark = pytest.mark.models

OUT, IN = 40, 30
FULL = min(OUT, IN)


def patch(seed: int, rank: int = 4, *, scaling: float = 2.0) -> Affine:
    make = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, IN, generator=make, dtype=torch.float64) / 6
    B = torch.randn(OUT, rank, generator=make, dtype=torch.float64) / 100
    return Affine(A=A, B=B, scaling=scaling)


def dense(patch: Affine) -> Any:
    return patch.scaling * patch.B.double() @ patch.A.double()


def combine(name: str, patches: Sequence[Affine], weights: Sequence[float], **how: Any) -> Any:
    how.setdefault("rank", FULL)
    return dense(load_target(catalog().strategies[name].target)(patches, weights, **how))


WEIGHTS_OF_TWO = [1.0, 0.5]
PATCHES, WEIGHTS = [patch(1), patch(2, 7, scaling=0.5), patch(3, 2)], [1.0, -0.5, 2.0]


def trimmed(delta: Any, density: float, *, skip: float = 0.0) -> list[list[float]]:
    """Entries whose place by size is one of those kept."""
    rows = delta.tolist()
    places = sorted(
        itertools.product(range(OUT), range(IN)), key=lambda at: -abs(rows[at[0]][at[1]])
    )
    first = round(skip * OUT * IN)
    kept = set(places[first : first + round(density * OUT * IN)])
    return [[rows[i][j] if (i, j) in kept else 0.0 for j in range(IN)] for i in range(OUT)]


def summed(values: Sequence[float]) -> float:
    return math.fsum(values)


def elected(values: Sequence[float]) -> float:
    sign = math.copysign(1.0, math.fsum(values))
    agreeing = [v for v in values if v * sign > 0]
    return math.fsum(agreeing) / len(agreeing) if agreeing else 0.0


def plainly(deltas: Sequence[Any], merge: Callable[[Sequence[float]], float]) -> Any:
    """Entry by entry, weights applied."""
    return torch.tensor(
        [
            [
                merge([w * delta[i][j] for w, delta in zip(WEIGHTS, deltas, strict=True)])
                for j in range(IN)
            ]
            for i in range(OUT)
        ],
        dtype=torch.float64,
    )


def apart(found: Any, expected: Any) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "merge"), [("ties", elected), ("magnitude_prune", summed)], ids=["ties", "prune"]
)
def test_the_largest_entries_are_combined_as_defined(
    name: str, merge: Callable[[Sequence[float]], float], density: float
) -> None:
    expected = plainly([trimmed(dense(p), density) for p in PATCHES], merge)
    assert apart(combine(name, PATCHES, WEIGHTS, density=density), expected) < 1e-10


@pytest.mark.parametrize("order", ["random", "sorted", "periodic", "ties"])
@pytest.mark.parametrize("density", [1e-5, 0.2, 0.99999])
def test_of_many_entries_as_many_are_kept_as_of_few(order: str, density: float) -> None:
    """A sample tells where to look; whatever it tells, the answer is the sorted list's."""
    rows, columns = 700, 512
    draw = torch.Generator().manual_seed(0)
    delta = torch.randn(rows * columns, generator=draw)
    if order == "sorted":
        delta = delta.sort().values
    elif order == "periodic":
        delta[::5] *= 1e-3
    elif order == "ties":
        delta = delta.round()
    wanted = round(density * delta.numel())
    threshold = delta.abs().sort(descending=True).values[wanted - 1]
    kept = masks.largest_of(delta.view(rows, columns), density)
    expected = torch.where(delta.abs() >= threshold, delta, 0.0).view(rows, columns)
    assert torch.equal(kept, expected)


def test_breadcrumbs_leaves_the_largest_out_as_well() -> None:
    expected = plainly([trimmed(dense(p), 0.6, skip=0.05) for p in PATCHES], summed)
    found = combine("breadcrumbs", PATCHES, WEIGHTS, density=0.6, outliers=0.05)
    assert apart(found, expected) < 1e-10


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della"])
def test_with_nothing_dropped_chance_decides_nothing(name: str) -> None:
    merge = summed if name == "dare_linear" else elected
    expected = plainly([dense(p).tolist() for p in PATCHES], merge)
    assert apart(combine(name, PATCHES, WEIGHTS, density=1.0), expected) < 1e-10


def test_dare_drops_the_share_it_says_and_keeps_the_mean() -> None:
    delta = dense(patch(1))
    found = [masks.dropped(delta, 0.3, torch.Generator().manual_seed(seed)) for seed in range(400)]
    kept = torch.stack([(one != 0).double() for one in found])
    assert float(kept.mean()) == pytest.approx(0.3, abs=0.003)
    # Each entry's mean has a standard error of |entry| * sqrt(0.7/0.3/400).
    error = (torch.stack(found).mean(0) - delta) / delta.abs()
    assert float(error.square().mean().sqrt()) == pytest.approx(math.sqrt(0.7 / 0.3 / 400), rel=0.1)


def test_della_keeps_large_entries_more_often_and_the_mean() -> None:
    delta = dense(patch(1))
    found = [
        masks.dropped_by_size(delta, 0.5, torch.Generator().manual_seed(seed), spread=0.8)
        for seed in range(400)
    ]
    kept = torch.stack([(one != 0).double() for one in found]).mean(0)
    order = delta.abs().argsort(dim=1)
    smallest, largest = (kept.gather(1, order[:, at : at + 1]).mean() for at in (0, IN - 1))
    assert float(smallest) == pytest.approx(0.1, abs=0.02)
    assert float(largest) == pytest.approx(0.9, abs=0.02)
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.01)
    assert apart(torch.stack(found).mean(0), delta) < 0.1


def test_company_and_order_do_not_change_what_an_adapter_loses() -> None:
    alone = combine("dare_linear", [patch(1)], [1.0], density=0.5, seed=7)
    beside = combine("dare_linear", [patch(2), patch(1)], [1e-12, 1.0], density=0.5, seed=7)
    assert apart(beside, alone) < 1e-6


@pytest.mark.parametrize("name", ["ties", "dare_linear", "magnitude_prune", "breadcrumbs"])
@pytest.mark.parametrize("rank", [2, 8])
def test_a_rank_gives_the_best_approximation_there_is(name: str, rank: int) -> None:
    whole = combine(name, PATCHES, WEIGHTS, density=0.5)
    U, S, Vh = torch.linalg.svd(whole, full_matrices=False)
    best = float((U[:, rank:] * S[rank:] @ Vh[rank:]).norm())
    found = combine(name, PATCHES, WEIGHTS, density=0.5, rank=rank)
    assert float((found - whole).norm()) <= 1.01 * best


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
def test_large_matrices_are_sketched_within_a_percent_of_the_best(decay: float) -> None:
    make = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(600, 300, generator=make))
    V, _ = torch.linalg.qr(torch.randn(500, 300, generator=make))
    S = torch.arange(1, 301).float().pow(-decay)
    matrix = U * S @ V.T
    found = truncated(matrix, rank=16)
    error = float((matrix - found.B @ found.A).norm())
    assert error <= 1.01 * float(S[16:].square().sum().sqrt())


def test_a_start_that_misses_the_largest_direction_is_no_harm() -> None:
    make = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(600, 300, generator=make))
    V, _ = torch.linalg.qr(torch.randn(500, 300, generator=make))
    S = torch.arange(1, 301).float().pow(-0.5)
    matrix = U * S @ V.T
    found = truncated(matrix, rank=16, start=U[:, 1:100])
    error = float((matrix - found.B @ found.A).norm())
    assert error <= 1.01 * float(S[16:].square().sum().sqrt())


@pytest.mark.parametrize("name", ["ties", "dare_ties", "breadcrumbs"])
def test_a_large_merge_is_sketched_within_a_percent_of_the_best(name: str) -> None:
    make = torch.Generator().manual_seed(0)
    patches = [
        Affine(
            A=torch.randn(8, 700, generator=make), B=torch.randn(500, 8, generator=make), scaling=2
        )
        for _ in range(3)
    ]
    whole = combine(name, patches, WEIGHTS[:3], rank=500)
    best = float(torch.linalg.svdvals(whole)[8:].norm())
    found = combine(name, patches, WEIGHTS[:3], rank=8)
    assert float((found - whole).norm()) <= 1.01 * best


@pytest.mark.parametrize("dependent", [False, True])
def test_columns_are_made_orthonormal_whatever_they_are(*, dependent: bool) -> None:
    columns = torch.randn(300, 12, generator=torch.Generator().manual_seed(0))
    if dependent:
        columns[:, 5] = columns[:, 2] * 3 + columns[:, 1] * 1e-7
    columns[:, 7] *= 1e-20
    found = orthonormal(columns)
    assert float((found.T @ found - torch.eye(12)).abs().max()) < 1e-6
    left = columns - found @ (found.T @ columns)
    assert float((left.norm(dim=0) / columns.norm(dim=0)).max()) < 1e-5


@pytest.mark.parametrize("size", [40, 600])
def test_a_share_to_keep_is_kept_by_the_smallest_rank(size: int) -> None:
    make = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(size, 30, generator=make))
    V, _ = torch.linalg.qr(torch.randn(size, 30, generator=make))
    S = 0.8 ** torch.arange(30)
    found = truncated(U * S @ V.T, rank=4, keep=0.95)
    shares = S.square().cumsum(0) / S.square().sum()
    assert found.rank == int((shares < 0.95).sum()) + 1


@pytest.mark.parametrize("name", ["knots", "core_space"])
def test_shared_coordinates_lose_nothing_that_one_adapter_holds(name: str) -> None:
    only = patch(1)
    assert apart(combine(name, [only], [0.7], density=1.0, rank=None), 0.7 * dense(only)) < 1e-10


@pytest.mark.parametrize("name", ["knots", "core_space"])
def test_in_shared_coordinates_adapters_that_agree_are_averaged(name: str) -> None:
    """The mean of what agrees, as in TIES: of two equal adapters it is either."""
    found = combine(name, [patch(1), patch(1)], [1.0, 1.0], density=1.0, rank=None)
    assert apart(found, dense(patch(1))) < 1e-8


def test_knots_is_ties_on_the_right_singular_vectors_of_all_deltas_side_by_side() -> None:
    patches = [patch(1, 3), patch(2, 5)]
    U, S, Vh = torch.linalg.svd(torch.cat([dense(p) for p in patches], dim=1), full_matrices=False)
    U, S, Vh = U[:, :8], S[:8], Vh[:8]
    parts = [masks.largest_of(part, 0.4) for part in Vh.split(IN, dim=1)]
    sign = (parts[0] + parts[1]).sign()
    agree = [torch.where(p.sign() == sign, p, 0.0) for p in parts]
    count = sum((a != 0).double() for a in agree).clamp(min=1)
    expected = U * S @ (sum(agree) / count)
    found = combine("knots", patches, [1.0, 1.0], density=0.4, rank=None)
    assert apart(found, expected) < 1e-8


EVERY = [e.record.name for e in catalog().strategies if e.record.name not in NEVER_MERGED]
# In coordinates that all adapters share, what is large depends on who shares them.
SHARED = {"knots", "core_space"}


def settings(name: str) -> dict[str, Any]:
    record = catalog().strategies[name]
    how: dict[str, Any] = {"rank": None if record.exact or name == "slerp" else FULL}
    return {**how, "density": 1.0} if name in SHARED else how


@pytest.mark.parametrize("name", EVERY)
def test_a_weight_of_zero_leaves_the_others_as_they_are(name: str) -> None:
    one, other = patch(1), patch(2, 7)
    found = combine(name, [one, other], [1.0, 0.0], **settings(name))
    alone = dense(one) if name == "slerp" else combine(name, [one], [1.0], **settings(name))
    assert apart(found, alone) < 1e-9


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_the_adapters_means_nothing(name: str) -> None:
    patches, weights = ([patch(1), patch(2, 7)], [1.0, 0.5])
    found = combine(name, patches, weights, **settings(name))
    turned = combine(name, patches[::-1], weights[::-1], **settings(name))
    assert apart(turned, found) < 1e-9


@pytest.mark.parametrize("name", EVERY)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    made = [
        load_target(catalog().strategies[name].target)(
            PATCHES[:2], WEIGHTS_OF_TWO, **settings(name)
        )
        for _ in range(2)
    ]
    assert torch.equal(made[0].A, made[1].A)
    assert torch.equal(made[0].B, made[1].B)


def test_slerp_walks_the_arc_between_two_deltas() -> None:
    one, other = patch(1), patch(2, 6)
    a, b = dense(one), dense(other)
    angle = math.acos(float((a * b).sum() / (a.norm() * b.norm())))
    for share in (0.0, 0.25, 0.5, 1.0):
        found = combine("slerp", [one, other], [1 - share, share], rank=None)
        expected = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(
            angle
        )
        assert apart(found, expected) < 1e-10


def test_slerp_between_equal_deltas_stays_where_it_is() -> None:
    found = combine("slerp", [patch(1), patch(1)], [0.5, 0.5], rank=None)
    assert apart(found, dense(patch(1))) < 1e-10


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("ties", {"density": 0.0}),
        ("ties", {"density": 1.5}),
        ("ties", {"keep": 0.0, "rank": None}),
        ("ties", {"keep": 0.9, "rank": 4}),
        ("svd", {"keep": 1.1, "rank": None}),
        ("breadcrumbs", {"outliers": -0.1}),
        ("della", {"spread": 2.0}),
        ("knots", {"density": 0.0}),
    ],
)
def test_numbers_that_mean_nothing_are_refused(name: str, how: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        combine(name, PATCHES, WEIGHTS, **how)


@pytest.mark.parametrize("patches", [[patch(1)], [patch(1), patch(2), patch(3)]])
def test_slerp_takes_two(patches: list[Affine]) -> None:
    with pytest.raises(UsageError, match="two"):
        combine("slerp", patches, [1.0] * len(patches), rank=None)
