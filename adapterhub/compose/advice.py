"""Recommend how to put adapters together, from figures: a strategy, a rank, weights, and why.

Rules only. What is best for a task, `eval` alone can tell. Two LoRAs of different tasks are nearly
orthogonal as a rule, so that their exact sum loses nothing, and yet each disturbs what the other
answers: of all strategies `core_space` kept most of both where they were measured
(`tests.bench.strategies`; README has the table).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adapterhub.compose.pairs import NEAR_DUPLICATE, PairFigures
from adapterhub.domain.composition import LINEAR

SVD, TIES, KNOTS, CORE_SPACE = "svd", "ties", "knots", "core_space"

# Two deltas of cosine c: ||D1 + D2||^2 lies within 1 +- |c| of ||D1||^2 + ||D2||^2, so at 0.1 the
# sum is neither stronger nor weaker than its parts by more than 5%.
APART_COSINE = 0.1
# `PairFigures.overlap`, or one side of it: a mean of squared cosines. Below a quarter, fewer than
# half of the principal angles are under 45 degrees (cos^2 = 1/2, by Markov's inequality). Unrelated
# adapters of rank r on a width of n lie at about r / n.
SHARED = 0.25
# `PairFigures.disputed`. For Gaussian entries of correlation c it is (1 - c / E|xy|) / 2 with
# E|xy| = (2 / pi) * (sqrt(1 - c^2) + c asin c): 0.5 at c = 0, 0.35 at 0.2, 0.21 at 0.4. Above this,
# deltas that meet in their spans have next to no direction in common.
DISPUTED = 0.35
# The share of the squared norm to keep: a relative error of sqrt(1 - 0.99) = 0.1.
KEPT = 0.99
# A cut rank is worth an approximation where it takes a quarter off the size at least.
WORTH_CUTTING = 0.75
# Beyond this, the weaker of two orthogonal ones makes less than a tenth of the sum's squared norm,
# 1 / (1 + 3^2).
NORM_RATIO = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What is known of adapters that fit together.

    norms        of each, its weight included
    rank         of the exact sum where most ranks meet
    kept_rank    the smallest that keeps KEPT of the sum's squared norm, with the weights that
                 `balance` gives
    dense_rank   out * in / (out + in) of the smallest module: above it two factors are larger than
                 the dense delta
    beyond       those that are more than low-rank deltas
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    norms: tuple[float, ...]
    pairs: tuple[PairFigures, ...]
    rank: int
    kept_rank: int
    dense_rank: int
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """`rank` None is the strategy's own, `options` are its numbers; `worst` are the two that
    decided, in the order of names."""

    strategy: str
    weights: tuple[float, ...]
    reasons: tuple[str, ...]
    rank: int | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    worst: tuple[int, int] | None = None


def advise(figures: Figures) -> Advice:
    """The pair that gets on worst decides, whatever the others are."""
    weights, about_weights = balance(
        figures.names, weights=figures.weights, norms=figures.norms, pairs=figures.pairs
    )
    if figures.beyond:
        beyond = (
            f"{_listed(figures.beyond)} {'is' if len(figures.beyond) == 1 else 'are'} more than "
            "low-rank deltas, so they can only be attached side by side",
        )
        return Advice(strategy=LINEAR, weights=weights, reasons=(*beyond, *about_weights))
    strategy, rank, reasons = _strategy(figures)
    worst = worst_pair(figures.pairs)
    # These keep every rank that came in, unless told what to keep.
    too_many = strategy in (KNOTS, CORE_SPACE) and figures.rank > figures.dense_rank
    return Advice(
        strategy=strategy,
        rank=rank,
        weights=weights,
        options={"keep": KEPT} if too_many else {},
        reasons=(*reasons, *about_weights),
        worst=(worst.one, worst.other) if worst else None,
    )


def balance(
    names: Sequence[str],
    *,
    weights: Sequence[float],
    norms: Sequence[float],
    pairs: Sequence[PairFigures],
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Weights that bring norms far apart to their geometric mean, and share one weight among
    duplicates; with what is said of both. The same weights where neither is so."""
    found, said = list(weights), []
    moving = [norm for norm in norms if norm > 0]
    if moving and max(moving) > NORM_RATIO * min(moving):
        mean = math.exp(sum(map(math.log, moving)) / len(moving))
        found = [w * mean / n if n > 0 else w for w, n in zip(found, norms, strict=True)]
        strong, weak = norms.index(max(moving)), norms.index(min(moving))
        said.append(
            f"the norm of {names[strong]} is {max(moving) / min(moving):.1f} times that of "
            f"{names[weak]}; these weights bring both to their geometric mean, which is a "
            "suggestion to measure"
        )
    twins = [pair for pair in pairs if _twins(pair)]
    for member in range(len(found)):
        # Several of one kind count once together.
        found[member] /= 1 + sum(member in (pair.one, pair.other) for pair in twins)
    if twins:
        closest = min(twins, key=lambda pair: pair.relative)
        said.append(
            f"{names[closest.one]} and {names[closest.other]} differ by {closest.relative:.2%}, so "
            "one of them is enough; together, each takes its part of one weight"
        )
    return tuple(_rounded(weight) for weight in found), tuple(said)


def worst_pair(pairs: Sequence[PairFigures]) -> PairFigures | None:
    """Those that dispute come before those that repeat each other, and these before the rest."""
    return max(
        pairs,
        key=lambda pair: (_contested(pair), _twins(pair), max(pair.overlap, abs(pair.cosine))),
        default=None,
    )


def _strategy(figures: Figures) -> tuple[str, int | None, tuple[str, ...]]:
    worst = worst_pair(figures.pairs)
    if worst is not None and _contested(worst):
        return _consensus(figures, worst)
    if worst is not None and worst.overlap < SHARED and abs(worst.cosine) <= APART_COSINE:
        return _trimmed(figures, worst)
    too_big = figures.rank > figures.dense_rank
    redundant = figures.kept_rank <= WORTH_CUTTING * figures.rank
    relation = _relation(figures, worst)
    if not (too_big or redundant):
        exact = f"rank {figures.rank}, with nothing lost"
        return LINEAR, None, (f"{relation}: their exact sum has {exact}",)
    size = (
        f"is past {figures.dense_rank}, where two factors outgrow the matrix they stand for"
        if too_big
        else "is more than the sum needs"
    )
    return (
        SVD,
        figures.kept_rank,
        (
            relation,
            f"rank {figures.rank} {size}: rank {figures.kept_rank} keeps {KEPT:.0%} of its "
            "squared norm",
        ),
    )


def _trimmed(figures: Figures, worst: PairFigures) -> tuple[str, int | None, tuple[str, ...]]:
    more = len(figures.names) > 2
    return (
        CORE_SPACE,
        None,
        (
            f"{_pair(figures, worst)}{', the pair nearest to each other,' if more else ''} are "
            f"nearly orthogonal (overlap {worst.overlap:.2f}, cosine {worst.cosine:+.2f})",
            "a plain sum would lose nothing, but each then disturbs what the others answer: "
            f"{CORE_SPACE} keeps the strongest entries of each between the spans of all, which "
            "kept most of every task where that was measured",
        ),
    )


def _consensus(figures: Figures, worst: PairFigures) -> tuple[str, int | None, tuple[str, ...]]:
    """TIES where it compares like with like: on cores where both spans are shared (Core Space), in
    a common basis of what is written where that is (KnOTS), else entry by entry."""
    strategy = TIES
    if worst.written >= SHARED:
        strategy = CORE_SPACE if worst.read >= SHARED else KNOTS
    where = {
        CORE_SPACE: "compares them between the spans that they share",
        KNOTS: "compares them in a basis of what both write into",
        TIES: "elects a sign for each entry",
    }[strategy]
    # What is left of trimmed entries has any rank; more than came in is never stored.
    rank = min(figures.rank, figures.dense_rank) if strategy == TIES else None
    return (
        strategy,
        rank,
        (
            f"{_between(figures, worst)}, and {worst.disputed:.0%} of what they change there, by "
            f"weight, pulls opposite ways (cosine {worst.cosine:+.2f}): a plain sum lets them "
            f"cancel, {strategy} {where}",
        ),
    )


def _relation(figures: Figures, worst: PairFigures | None) -> str:
    if worst is None:
        return f"{_listed(figures.names)} share no module"
    if _twins(worst):
        return f"{_between(figures, worst)} and are nearly one adapter"
    return (
        f"{_between(figures, worst)} and mostly agree (disputed {worst.disputed:.0%}, cosine "
        f"{worst.cosine:+.2f})"
    )


def _between(figures: Figures, worst: PairFigures) -> str:
    more = len(figures.names) > 2
    return (
        f"{_pair(figures, worst)}{', the worst pair,' if more else ''} overlap (written "
        f"{worst.written:.2f}, read {worst.read:.2f} of 1)"
    )


def _pair(figures: Figures, pair: PairFigures) -> str:
    return f"{figures.names[pair.one]} and {figures.names[pair.other]}"


def _contested(pair: PairFigures) -> bool:
    meet = pair.overlap >= SHARED or pair.cosine < -APART_COSINE
    return meet and pair.disputed >= DISPUTED


def _twins(pair: PairFigures) -> bool:
    return pair.relative <= NEAR_DUPLICATE


def _rounded(weight: float) -> float:
    return float(f"{weight:.3g}")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
