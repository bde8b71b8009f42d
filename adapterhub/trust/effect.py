"""Does an adapter change what its base says, and by how much?

Compares logits with and without it on fixed prompts. A change proves that it is attached and
active, not that it does anything good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterhub.domain.engines import Engine, ScoreRequest, Slots
from adapterhub.domain.evaluation import Message
from adapterhub.domain.probe import PROMPTS
from adapterhub.errors import NoEffectError

if TYPE_CHECKING:
    from torch import Tensor

# Twice the largest difference that batching and summation order make in float32.
NOTHING = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """Logits (positions, vocabulary) before each answer token of PROMPTS, in float32. `lengths`
    are the positions of each prompt, in order."""

    without: Tensor
    having: Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """`relative` is |with - without| / |without| over all logits asked for, in L2 norm;
    `flips` is the share of positions whose likeliest token changed."""

    relative: float
    flips: float
    finite: bool


def hear(engine: Engine, slots: Slots) -> Heard:
    """Score every prompt with the slots and without."""
    import torch

    def scores(chosen: Slots) -> list[Tensor]:
        requests = [
            ScoreRequest(
                messages=(Message(role="user", content=prompt),),
                answer=answer,
                slots=chosen,
                logits=True,
            )
            for prompt, answer in PROMPTS
        ]
        return [score.logits for score in engine.score(requests)]

    without, having = scores(()), scores(slots)
    return Heard(
        without=torch.cat(without),
        having=torch.cat(having),
        lengths=tuple(map(len, without)),
    )


def effect_of(heard: Heard) -> Effect:
    import torch

    without, having = heard.without, heard.having
    return Effect(
        relative=float((having - without).norm() / without.norm()),
        flips=float((having.argmax(-1) != without.argmax(-1)).float().mean()),
        finite=bool(torch.isfinite(having).all()),
    )


def measure_effect(engine: Engine, slots: Slots) -> Effect:
    """The effect of the slots on every prompt."""
    return effect_of(hear(engine, slots))


def check_effect(effect: Effect, name: str) -> None:
    """Raises NoEffectError for an adapter that changes nothing or breaks the base."""
    if not effect.finite:
        raise NoEffectError(
            f"with {name} attached, the base gives NaN or infinite logits",
            hint="its weights are broken; ask its author",
        )
    if effect.relative <= NOTHING:
        raise NoEffectError(
            f"{name} changes nothing: with and without it the base says the same",
            hint="it was saved untrained, or for another base; ask its author",
        )
