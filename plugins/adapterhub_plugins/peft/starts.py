"""Where a LoRA's factors start, other than at peft's own zeros and random numbers.

peft computes these from the base's stored weight, which on a quantized base holds no numbers, and
for PiSSA changes it; here a start is a pair of factors and the base is left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# On a CPU an exact decomposition of 3072 x 9216 takes forty times as long as four power iterations,
# which find the same directions but for a fraction of a percent, and a Phi-3 has 32 such layers.
_EXACT_UP_TO = 1024
_OVERSAMPLING = 16
_ITERATIONS = 4


def principal(weight: Tensor, *, rank: int, scaling: float) -> tuple[Tensor, Tensor]:
    """PiSSA (arXiv 2404.02948): A (rank, in), B (out, rank) such that scaling * B A is the best
    approximation of weight (out, in). The same weight gives the same factors."""
    import torch

    U, S, V = _decompose(weight, rank)
    root = torch.sqrt(S[:rank] / scaling)
    return (V[:, :rank] * root).T.contiguous(), (U[:, :rank] * root).contiguous()


def orthogonal(shape: tuple[int, int], *, rank: int, make: Any) -> tuple[Tensor, Tensor]:
    """peft's orthogonal start for a layer (out, in): neither A nor B is zero and B A is, because
    their rows are made of the odd and the even rows of one orthogonal matrix.

    In float64 first: what rounding leaves of B A would be an effect. `make` is a torch.Generator.
    """
    import torch

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=make, dtype=torch.float64)

    out, into = shape
    Q = torch.linalg.qr(normal(rank, rank))[0]
    A = (normal(into, rank // 2) @ Q[0::2]).T / 10
    B = (normal(out, rank // 2) @ Q[1::2]) / 10
    return A.to(torch.float32).contiguous(), B.to(torch.float32).contiguous()


def _decompose(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, k), S (k,), V (in, k) with k >= rank where the weight has as many."""
    import torch

    width = min(weight.shape)
    wanted = min(width, rank + _OVERSAMPLING)
    if width <= _EXACT_UP_TO or 4 * wanted > width:
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        return _padded(U, S, Vh.T, rank)
    devices = [weight.device] if weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        found: tuple[Tensor, Tensor, Tensor] = torch.svd_lowrank(
            weight, q=wanted, niter=_ITERATIONS
        )
    return found


def _padded(U: Tensor, S: Tensor, V: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """A rank above the weight's own is filled up with zeros."""
    from torch.nn.functional import pad

    more = max(0, rank - len(S))
    return pad(U, (0, more)), pad(S, (0, more)), pad(V, (0, more))
