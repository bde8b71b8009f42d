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

    elected = total(deltas).sign_()
    summed, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta in deltas:
        supporting = (delta * elected).clamp_(min=0.0)
        summed += supporting
        count += supporting.sign_()
    return summed.mul_(elected).div_(count.clamp_(min=1.0))


def total(deltas: Sequence[Tensor]) -> Tensor:
    summed = deltas[0].clone()
    for delta in deltas[1:]:
        summed += delta
    return summed
