"""What a patch says of itself, for anything that has a shape."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import pytest

from adapterhub.domain.patch import Affine, Block, Prompt, Weights


@dataclass(frozen=True)
class Shaped:
    """All this module ever asks of a tensor."""

    shape: tuple[int, ...]


LINEAR = Affine(A=Shaped((4, 8)), B=Shaped((6, 4)), scaling=2.0)
CONV = Affine(A=Shaped((3, 8, 5, 5)), B=Shaped((6, 3, 1, 1)))


@pytest.mark.parametrize(
    ("patch", "rank"), [(LINEAR, 4), (CONV, 3), (Affine(column_scale=Shaped((8,))), 0)]
)
def test_the_rank_is_the_number_of_rows_of_a(patch: Affine, rank: int) -> None:
    assert patch.rank == rank


@pytest.mark.parametrize("part", ["row_scale", "column_scale", "bias"])
def test_only_a_bare_product_may_be_added_up(part: str) -> None:
    more: dict[str, Any] = {part: Shaped((8,))}
    assert LINEAR.low_rank_only
    assert not replace(LINEAR, **more).low_rank_only


def test_scales_without_a_product_are_not_low_rank() -> None:
    assert not Affine().low_rank_only


@pytest.mark.parametrize(
    "patch", [LINEAR, Block(module=None), Prompt(), Weights(difference=None)], ids=type
)
def test_a_patch_is_frozen(patch: object) -> None:
    name = fields(patch)[0].name  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        setattr(patch, name, 1)
