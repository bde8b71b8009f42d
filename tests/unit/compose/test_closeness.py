"""The distance from an exact sum, through factors, is that of the dense matrices."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.domain.patch import Affine, Deltas

torch = pytest.importorskip("torch")

from adapterhub.compose.closeness import closeness  # noqa: E402

pytestmark = pytest.mark.models

OUT, IN, WEIGHTS = 60, 40, [1.0, -0.5, 2.0]


def patch(rank: int, seed: int, dtype: Any) -> Affine:
    make = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, IN, generator=make), torch.randn(OUT, rank, generator=make)
    return Affine(A=A.to(dtype), B=B.to(dtype), scaling=0.5)


def dense(given: Affine) -> Any:
    return given.scaling * given.B.double() @ given.A.double()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("off", [0.0, 1e-6, 1e-2, 1.0])
def test_it_is_the_distance_of_the_dense_matrices(dtype: Any, off: float) -> None:
    patches = [patch(4, 1, dtype), patch(7, 2, dtype), patch(2, 3, dtype)]
    exact = sum(w * dense(p) for w, p in zip(WEIGHTS, patches, strict=True))
    U, S, Vh = torch.linalg.svd(exact)
    rank = 13 if off < 1.0 else 3
    stored = Affine(A=S[:rank, None] * Vh[:rank] * (1 + off % 1.0), B=U[:, :rank].contiguous())
    found = closeness(Deltas(patches), WEIGHTS, stored)
    wanted = float((dense(stored) - exact).square().sum())
    assert found.exact == pytest.approx(float(exact.square().sum()), rel=1e-12)
    assert found.error == pytest.approx(wanted, rel=1e-4, abs=1e-14 * found.exact)
    assert found.stored == pytest.approx(float(dense(stored).square().sum()), rel=1e-12)
    parts = sum(float((w * dense(p)).square().sum()) for w, p in zip(WEIGHTS, patches, strict=True))
    assert found.parts == pytest.approx(parts, rel=1e-12)


def test_deltas_are_asked_once_and_are_the_patches_that_came_in() -> None:
    patches = [patch(4, 1, torch.float32), patch(7, 2, torch.float32)]
    deltas = Deltas.of(patches)
    assert Deltas.of(deltas) is deltas
    assert list(deltas) == patches
    assert deltas.grams is deltas.grams
    assert deltas.reads.shape == (11, IN)
    assert deltas.writes.shape == (11, OUT)
    assert torch.equal(deltas.writes[4:].float(), patches[1].B.mT)
    assert deltas.factors([2.0, 3.0]).tolist() == [1.0] * 4 + [1.5] * 7


def test_what_overflowed_is_not_finite() -> None:
    stored = Affine(A=torch.full((1, IN), torch.inf), B=torch.ones(OUT, 1))
    assert not closeness(Deltas([patch(2, 1, torch.float32)]), [1.0], stored).stored < torch.inf
