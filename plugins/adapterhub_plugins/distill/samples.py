"""A teacher's distributions by a few random samples of each, an unbiased estimate.

Random sampling knowledge distillation (arXiv 2503.16870): n token ids drawn from p itself, each
with the weight count / n, so that the expected weight of a token is its probability and the
gradient of the cross-entropy is right on average, as the largest k probabilities never make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterhub.domain.digest import digest_of
from adapterhub.domain.protocols import Example

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """Samples of several positions: those of position i lie in [offsets[i], offsets[i + 1]).

    ids (samples,) int32, weights (samples,) and the distributions' entropies (positions,) float32,
    offsets (positions + 1,) int64; all on the CPU.
    """

    ids: Tensor
    weights: Tensor
    offsets: Tensor
    entropy: Tensor

    def part(self, first: int, end: int) -> Sampled:
        """Positions [first, end) alone."""
        start, stop = int(self.offsets[first]), int(self.offsets[end])
        return Sampled(
            ids=self.ids[start:stop],
            weights=self.weights[start:stop],
            offsets=self.offsets[first : end + 1] - start,
            entropy=self.entropy[first:end],
        )


def generator_for(row: Example, *, seed: int, device: Any) -> Any:
    """Random numbers that the row's own tokens and the seed decide."""
    import torch

    digest = digest_of([seed, row.answer_start, *row.ids])
    return torch.Generator(device).manual_seed(int(digest[:15], 16))


def draw(logits: Tensor, *, samples: int, temperature: float, generator: Any) -> Sampled:
    """Samples of softmax(logits / T) for each row of `logits` (positions, vocabulary)."""
    import torch

    log_p = (logits.float() / temperature).log_softmax(dim=-1)
    p = log_p.exp()
    positions, vocabulary = p.shape
    picks = torch.multinomial(p, samples, replacement=True, generator=generator).long()
    rows = torch.arange(positions, device=p.device)[:, None]
    # Sorted, hence position by position.
    keys, counts = torch.unique(rows * vocabulary + picks, return_counts=True)
    found = torch.bincount(keys // vocabulary, minlength=positions).cpu()
    return Sampled(
        ids=(keys % vocabulary).to("cpu", torch.int32),
        weights=(counts.float() / samples).cpu(),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), found.cumsum(dim=0)]),
        entropy=-(p * log_p).sum(dim=-1).cpu(),
    )


def joined(parts: Sequence[Sampled]) -> Sampled:
    """All positions of all parts, in order."""
    import torch

    offsets, end = [torch.zeros(1, dtype=torch.int64)], 0
    for part in parts:
        offsets.append(part.offsets[1:] + end)
        end += int(part.offsets[-1])
    return Sampled(
        ids=torch.cat([part.ids for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
        offsets=torch.cat(offsets),
        entropy=torch.cat([part.entropy for part in parts]),
    )


def side_by_side(sampled: Sampled, *, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """ids and weights (positions, most samples), the shorter filled up with weight 0, and the
    entropies, on `device`."""
    import torch

    counts = sampled.offsets.diff()
    there = torch.arange(int(counts.max()))[None, :] < counts[:, None]
    ids = torch.zeros(there.shape, dtype=torch.int64)
    weights = torch.zeros(there.shape)
    ids[there], weights[there] = sampled.ids.long(), sampled.weights
    return ids.to(device), weights.to(device), sampled.entropy.to(device)
