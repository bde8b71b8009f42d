"""Low-rank deltas added up through their factors: exactly, at a given rank, or along an arc.

Works on one site's factors and never forms a dense delta, nor pairs one adapter's A with another's
B. It has never seen a file, a model or an adapter's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterhub.domain.composition import NEVER_MERGED, ROUTE, SEQUENTIAL, SWITCH
from adapterhub.domain.patch import Affine, Deltas
from adapterhub.errors import CapabilityError, UsageError
from adapterhub_plugins.strategies.cores import cut
from adapterhub_plugins.strategies.factors import check_patches, stacked, working_dtype
from adapterhub_plugins.strategies.truncate import check_rank, kept_rank

if TYPE_CHECKING:
    from torch import Tensor

# A sine below this belongs to deltas that point the same way, or straight apart.
_ONE_DIRECTION = 1e-6


def linear(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Exactly sum_i weight_i * scaling_i * B_i A_i, as one pair of factors with scaling 1.

    A is stacked (sum of ranks, in), B set side by side (out, sum of ranks). Raises UsageError for a
    rank, because a sum has the rank it has.
    """
    if rank is not None:
        raise UsageError(
            "linear keeps every rank and cannot be limited to one",
            hint=f"--strategy svd --rank {rank} gives the best sum of that rank",
        )
    check_patches(patches, weights)
    return stacked(patches, weights, dtype=working_dtype(patches))


def svd(
    patches: Sequence[Affine],
    weights: Sequence[float],
    *,
    rank: int | None,
    keep: float | None = None,
) -> Affine:
    """The best approximation of that sum at `rank` in Frobenius norm (Eckart and Young, 1936), or
    at the smallest rank with `keep` of its squared norm.

    Each side gets the square roots of the singular values. The default rank is the largest that
    came in; the result has fewer if the sum has. Computed in float64.
    """
    check_patches(patches, weights)
    check_rank(rank, keep)
    wanted = max(patch.rank for patch in patches) if rank is None else rank

    def kept(values: Tensor) -> int:
        return min(wanted if keep is None else kept_rank(values, keep), len(values))

    merged = cut(Deltas.of(patches), weights, kept)
    dtype = working_dtype(patches)
    return Affine(A=merged.A.to(dtype), B=merged.B.to(dtype))


def slerp(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Between two deltas along the arc that their directions span (Shoemake, 1985).

    Weights w and v place the result at v / (w + v) of the way; along an arc, unlike on a line, two
    deltas that point apart keep their size. Exact, with the sum of both ranks. Raises UsageError
    unless there are two, with weights that are not negative.
    """
    check_patches(patches, weights)
    if len(patches) != 2 or min(weights) < 0 or sum(weights) <= 0:
        raise UsageError(
            "slerp goes from one adapter to another, with two weights of at least 0",
            hint="give two adapters, or take --strategy linear",
        )
    if rank is not None:
        raise UsageError("slerp has the rank of its sum", hint="leave --rank out")
    share = weights[1] / sum(weights)
    angle = math.acos(_cosine(patches))
    if math.sin(angle) < _ONE_DIRECTION:  # no arc, or no single one: the line between them
        parts = [1.0 - share, share]
    else:
        parts = [math.sin((1.0 - share) * angle), math.sin(share * angle)]
        parts = [part / math.sin(angle) for part in parts]
    return stacked(patches, parts, dtype=working_dtype(patches))


def _cosine(patches: Sequence[Affine]) -> float:
    """Of the angle between two deltas, from their factors alone."""
    one, other = patches

    def inner(a: Affine, b: Affine) -> float:
        A = a.A.double() @ b.A.double().mT
        return float((a.B.double().mT @ b.B.double() * A).sum()) * a.scaling * b.scaling

    size = math.sqrt(inner(one, one) * inner(other, other))
    return max(-1.0, min(1.0, inner(one, other) / size)) if size else 1.0


def sequential(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Raises CapabilityError: what one adapter makes of another's work is no patch of the base."""
    raise _attached_only(SEQUENTIAL)


def switch(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Raises CapabilityError: which adapter answers is not known before there is a request."""
    raise _attached_only(SWITCH)


def route(patches: Sequence[Affine], weights: Sequence[float], *, rank: int | None) -> Affine:
    """Raises CapabilityError: which adapter answers is not known before there is a prompt."""
    raise _attached_only(ROUTE)


def _attached_only(name: str) -> CapabilityError:
    return CapabilityError(
        f"{name} exists attached only: {NEVER_MERGED[name]}",
        hint=f"write it down instead: adapterhub stack A B --strategy {name}",
    )
