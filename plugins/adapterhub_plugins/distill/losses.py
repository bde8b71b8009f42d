"""How far a student's distribution is from a teacher's, summed over tokens.

Plain arithmetic on logits (tokens, vocabulary), in float32 whatever they come in; knows neither
rows nor models. p is the teacher's distribution, q the student's, both at the temperature T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from adapterhub_plugins.distill.options import Options

if TYPE_CHECKING:
    from torch import Tensor

# Numbers in one chunk of logits: 64 MB of float32, a few times over while it is worked on.
CELLS = 1 << 24


def in_chunks(loss: Callable[..., Tensor], *rows: Tensor, cells: int = CELLS) -> Tensor:
    """The sum of `loss` over chunks of the tokens that all of `rows` have in common.

    Each chunk's temporaries are made anew in the backward pass, so that those of a single chunk
    exist at a time, however many tokens there are.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    tokens = rows[0].shape[0]
    step = max(1, cells // max(part.shape[-1] for part in rows if part.ndim > 1))
    if tokens <= step:
        return loss(*rows)
    parts = []
    for first in range(0, tokens, step):
        chunk = [part[first : first + step] for part in rows]
        parts.append(checkpoint(loss, *chunk, use_reentrant=False, preserve_rng_state=False))
    return torch.stack(parts).sum()


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(student.float(), labels, reduction="sum")


def divergence(options: Options) -> Callable[[Tensor, Tensor], Tensor]:
    """T^2 times the chosen divergence, from (student, teacher) logits.

    T^2 keeps the gradient's size whatever the temperature (Hinton et al., arXiv 1503.02531).
    """
    T = options.temperature

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        log_q, log_p = _log_softmax(student, T), _log_softmax(teacher, T)
        if options.divergence == "forward":
            return T * T * _kl(log_p, log_q)
        if options.divergence == "reverse":
            return T * T * _kl(log_q, log_p)
        return T * T * _jensen_shannon(log_p, log_q, options.beta)

    return loss


def sampled_divergence(options: Options) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """T^2 KL(p || q) as samples of p estimate it, from student logits, token ids and their
    weights (tokens, samples), and the entropies of p (tokens,)."""
    T = options.temperature

    def loss(student: Tensor, ids: Tensor, weights: Tensor, entropy: Tensor) -> Tensor:
        log_q = _log_softmax(student, T).gather(1, ids)
        return T * T * (-(weights * log_q).sum() - entropy.sum())

    return loss


def sorted_distance(options: Options) -> Callable[[Tensor, Tensor], Tensor]:
    """The universal logit distillation loss (arXiv 2402.12030): sum of |p_i - q_i| over the
    probabilities in falling order, the shorter vocabulary filled up with zeros."""
    from torch.nn.functional import pad

    T = options.temperature

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        q, p = (
            _log_softmax(part, T).exp().sort(dim=-1, descending=True).values
            for part in (student, teacher)
        )
        gap = p.shape[-1] - q.shape[-1]
        q, p = pad(q, (0, max(0, gap))), pad(p, (0, max(0, -gap)))
        return (p - q).abs().sum()

    return loss


def _log_softmax(logits: Tensor, T: float) -> Tensor:
    return (logits.float() / T).log_softmax(dim=-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum()


def _jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (arXiv 2306.13649)."""
    import torch

    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)
