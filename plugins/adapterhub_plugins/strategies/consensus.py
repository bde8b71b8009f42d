"""One value for each entry from several deltas that may disagree about its sign (TIES,
arXiv 2306.01708).

Works on any tensors of one shape; whose deltas they are is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def agreed(deltas: Sequence[Tensor]) -> Tensor:
    """Elect each entry's sign by the larger total, and give the mean of those that have it.

    Deltas come weighted. An entry that is zero has no say, and where totals cancel the answer is
    zero.
    """
    import torch

    elected = total(deltas).sign()
    summed, count = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta in deltas:
        has = (delta.sign() == elected) & (delta != 0)
        summed += torch.where(has, delta, 0.0)
        count += has
    return summed / count.clamp(min=1.0)


def total(deltas: Sequence[Tensor]) -> Tensor:
    summed = deltas[0].clone()
    for delta in deltas[1:]:
        summed += delta
    return summed
