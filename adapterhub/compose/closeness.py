"""How close a low-rank delta is to the exact weighted sum of several, through their factors alone.

Squared Frobenius norms of one module, in float64; whose deltas they are is not known here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterhub.domain.patch import Affine, Deltas

if TYPE_CHECKING:
    from torch import Tensor

# A squared error of less than this part of the sum's own is measured again in float64, whatever was
# quicker: float32 leaves about 1e-6 of it.
_CLOSE = 1e-2


@dataclass(frozen=True, slots=True)
class Squares:
    """`error` is ||exact - stored||^2, `exact` the sum's own, `parts` its terms' added up and
    `stored` what was made of it: not finite where that overflowed."""

    error: float
    exact: float
    parts: float
    stored: float


def closeness(deltas: Deltas, weights: Sequence[float], stored: Affine) -> Squares:
    """Of `stored`, whose scaling is 1, and sum_i weight_i * scaling_i * B_i A_i."""
    on_A, on_B = deltas.grams
    factors = deltas.factors(weights)
    # Entry (i, j) is the inner product of the i-th and the j-th column times row of the sum, so
    # that a block's sum is that of two deltas.
    inner = on_A * on_B * factors * factors[:, None]
    own = Deltas([stored])
    exact, found = float(inner.sum()), float((own.grams[0] * own.grams[1]).sum())
    error = None
    if stored.A.device.type == "cpu":  # a GPU is as quick in float64
        error = exact - 2 * _across_roughly(deltas, factors, stored) + found
    if error is None or error < _CLOSE * exact:
        products = (deltas.writes @ own.writes.mT) * (deltas.reads @ own.reads.mT)
        error = exact - 2 * float((products.cpu() * factors[:, None]).sum()) + found
    ends = [0, *itertools.accumulate(deltas.ranks)]
    return Squares(
        error=max(0.0, error),
        exact=max(0.0, exact),
        parts=sum(float(inner[a:b, a:b].sum()) for a, b in itertools.pairwise(ends)),
        stored=found,
    )


def _across_roughly(deltas: Deltas, factors: Tensor, stored: Affine) -> float:
    """The inner product of the sum and what is stored, its long sums in float32."""
    import torch

    A, B = stored.A.float().mT, stored.B.float()
    total = 0.0
    for patch, own in zip(deltas, torch.split(factors, deltas.ranks), strict=True):
        products = (patch.B.float().mT @ B).double() * (patch.A.float() @ A).double()
        total += float((products * own[:, None]).sum())
    return total
