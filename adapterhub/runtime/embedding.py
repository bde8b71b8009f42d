"""What a prompt looks like to the bare base, and what a set of prompts has in common.

No adapter takes part and nothing is trained; which adapter answers is for
`adapterhub.runtime.answering`. A prompt costs one forward pass; the everyday prompts, which it is
held against, are read once for each loaded base.

The layer was measured: `python -m tests.bench.routing HOME`, 2026-11-24, SmolLM2-135M-Instruct in
NF4 on a CPU, four tasks, 50 held-out prompts each, centroids of 32 training prompts. How many of
the 200 are nearest to their own task, and by how much at least, with and without the system
messages that state the rules of two tasks:

    block   0              5              10             15             25             30
    with    100%, +0.04    100%, +0.24    100%, +0.27    100%, +0.33    100%, +0.31    100%, +0.05
    without 93.5%, -0.07   100%, +0.19    100%, +0.18    100%, +0.25    100%, +0.26    100%, +0.01

There is no rule by which a prompt that is near to none goes to the bare base: after block 15 the
least cosine of a prompt to its own task is 0.72, but an everyday prompt comes up to 0.68 near
(median 0.16), and tasks of more varied prompts must be expected to lie further from their
centroids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterhub.domain.centroid import Centroid, pack
from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Message
from adapterhub.domain.probe import PROMPTS
from adapterhub.models.quiet import quiet
from adapterhub.runtime.reference import ReferenceEngine

if TYPE_CHECKING:
    from torch import Tensor

MOST = 32  # training prompts that are read, which costs about what a step of training does
LONGEST = 512  # tokens of a prompt that are read
# How a prompt becomes a vector. Centroids made by another rule are not to be compared.
RULE = digest_of([1, [prompt for prompt, _ in PROMPTS], LONGEST])[:16]

Conversation = tuple[Message, ...]


def usual_layer(engine: ReferenceEngine) -> int:
    """The middle one: how many of the base's blocks a prompt goes through."""
    blocks: int = engine.base.model.config.get_text_config().num_hidden_layers
    return blocks // 2


def embed(
    engine: ReferenceEngine, conversations: Sequence[Conversation], *, layer: int
) -> list[list[float]]:
    """A vector of length 1 for each conversation's prompt: the mean of its tokens' states after so
    many blocks, each of length 1, without what everyday prompts (those of the probe) have in the
    mean.

    The prompt is the last user message behind the system message, in the base's template.
    """
    return [[float(x) for x in row] for row in _embedded(engine, conversations, layer)]


def make_centroid(
    engine: ReferenceEngine, conversations: Sequence[Conversation]
) -> Centroid | None:
    """Of at most MOST prompts, evenly spaced; None where the states are not finite, or cancel."""
    import torch

    step = -(-len(conversations) // MOST)
    taken = conversations[::step]
    layer = usual_layer(engine)
    mean = _embedded(engine, taken, layer).mean(dim=0)
    length = float(mean.norm())
    if not (torch.isfinite(mean).all() and length > 0):
        return None
    return Centroid(
        values=pack((mean / length).tolist()),
        dimension=len(mean),
        prompts=len(taken),
        layer=layer,
        base=engine.base.spec.fingerprint.content,
        rule=RULE,
    )


def prompt_of(conversation: Conversation) -> Conversation:
    """The last user message, behind the system message where there is one."""
    system = conversation[:1] if conversation[0].role == "system" else ()
    user = [message for message in conversation if message.role == "user"]
    return (*system, user[-1])


def states(
    engine: ReferenceEngine, conversations: Sequence[Conversation], layers: Sequence[int]
) -> Tensor:
    """float64 (conversations, layers, hidden): of each prompt, what its tokens' states have in the
    mean, each brought to length 1.

    Else the first token, whose state is hundreds of times as long as any other's in many bases,
    would be all that a mean shows. Each prompt is read alone: what is beside it in a batch would
    change its last digits.
    """
    import torch

    engine.rack.activate(())
    found = []
    with quiet(), torch.inference_mode():
        for conversation in conversations:
            ids = engine.chat.prompt_ids(prompt_of(conversation))[:LONGEST]
            hidden = engine.base.model(
                input_ids=torch.tensor([ids], device=engine.base.device),
                output_hidden_states=True,
                logits_to_keep=1,
                use_cache=False,
            ).hidden_states
            tokens = torch.stack([hidden[layer][0].double() for layer in layers])
            found.append(torch.nn.functional.normalize(tokens, dim=-1).mean(dim=1).cpu())
    return torch.stack(found)


def everyday_prompts() -> list[Conversation]:
    return [(Message(role="user", content=prompt),) for prompt, _ in PROMPTS]


def centred(found: Tensor, everyday: Tensor) -> Tensor:
    """(prompts, hidden), of length 1: without the mean of everyday prompts' (prompts, hidden)."""
    import torch

    return torch.nn.functional.normalize(found - everyday.mean(dim=0), dim=-1)


def _embedded(engine: ReferenceEngine, conversations: Sequence[Conversation], layer: int) -> Tensor:
    kept: dict[int, Tensor] = engine.base.shared.setdefault("everyday prompts", {})
    if layer not in kept:
        kept[layer] = states(engine, everyday_prompts(), [layer])[:, 0]
    return centred(states(engine, conversations, [layer])[:, 0], kept[layer])
