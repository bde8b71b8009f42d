"""How often `route` finds the adapter that a prompt is for, at several layers, and what it costs.

    python -m tests.bench.routing HOME [--source FILE] [--device cpu] [--limit 50]

Four tasks on SmolLM2-135M-Instruct in NF4 (or on the folder or GGUF file of --source): the two
bundled ones, each also without the system message that states its rule, and two whose prompts are
one question: words to sort, and sums. Nothing is trained: routing sees prompts alone. Centroids are
of MOST training prompts each, as `train` takes them; then --limit held-out prompts of each task are
held against them. Everyday prompts, which are for none of the tasks, show how near such a prompt
comes. Figures go to HOME/routing.json.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

from adapterhub.domain.evaluation import Message
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.evaluate.tasks.load import load_task
from adapterhub.models.bases import add_base, base_folder, find_base
from adapterhub.models.loader import load_base
from adapterhub.models.sample import fetch_sample
from adapterhub.runtime.embedding import (
    MOST,
    Conversation,
    centred,
    everyday_prompts,
    states,
    usual_layer,
)
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.testing.tiny import temporary_home
from adapterhub.train.data import load_items

BUNDLED = ("iso-dates", "strict-json")
WORDS = (
    "apple", "bridge", "cloud", "dance", "eagle", "forest", "garden", "hammer", "island", "jungle",
    "kettle", "lemon", "mirror", "needle", "orange", "pencil", "quartz", "river", "silver",
    "tunnel", "umbrella", "violet", "window", "yellow", "zebra",
)  # fmt: skip
SUMS = ("What is {a} + {b}?", "Add {a} and {b}.", "{a} plus {b} equals?",
        "If I have {a} coins and find {b} more, how many have I?")  # fmt: skip
EVERYDAY = """How do I boil an egg?
Tell me a joke about cats.
Why is the sky blue?
Write a haiku about autumn.
Who wrote Hamlet?
Explain photosynthesis to a child.
What should I cook tonight?
Give me three tips for sleeping better.
Translate 'thank you' to French.
What is the difference between a virus and a bacterium?
Write a Python function that reverses a string.
Summarize the plot of Romeo and Juliet.
How far is the moon?
What are the symptoms of a cold?
Write an email to my boss asking for a day off.
Plan a weekend in Rome.
Name five mammals.
Fix the grammar: he go to school yesterday.
What year did World War II end?
Convert 10 miles to kilometers.
SELECT name FROM users WHERE age > 30; explain this query.
My name is Tom and I am 30 years old. What should I study?
Hello!
Can you help me with my homework?
What is the weather like in Paris today?
List the planets of the solar system.
What is the square root of 144?
Tell me about the history of Berlin.
What happened on July 4, 1776?
Explain the rules of chess.""".splitlines()

# By task: prompts to take the centroid of, and prompts to route.
Prompts = Mapping[str, tuple[Sequence[Conversation], Sequence[Conversation]]]


def user(text: str) -> Conversation:
    return (Message(role="user", content=text),)


def sort_words(n: int, draw: random.Random) -> list[Conversation]:
    return [user(f"Sort these words: {', '.join(draw.sample(WORDS, 5))}") for _ in range(n)]


def sums(n: int, draw: random.Random) -> list[Conversation]:
    return [
        user(draw.choice(SUMS).format(a=draw.randint(10, 999), b=draw.randint(10, 999)))
        for _ in range(n)
    ]


def prompts(limit: int, *, bare: bool) -> Prompts:
    """Of all four tasks; `bare` leaves the system messages out."""
    found: dict[str, tuple[Sequence[Conversation], Sequence[Conversation]]] = {}
    for name in BUNDLED:
        training = [item.messages for _, item in load_items(name, seed=0)[0]][:MOST]
        held_out = [item.messages for item in load_task(name, limit=limit).items]
        found[name] = (
            [messages[bare:] for messages in training],
            [messages[bare:] for messages in held_out],
        )
    for name, make in (("sort-words", sort_words), ("sums", sums)):
        found[name] = (make(MOST, random.Random(1)), make(limit, random.Random(2)))
    return found


def measure(
    read: Mapping[str, tuple[Tensor, Tensor]], everyday: Tensor, centre: Tensor
) -> dict[str, float]:
    """The share of prompts that are routed to their own task, how near the furthest of them is to
    it and by how much it is nearer than to any other, and how near everyday prompts come.

    All are states (prompts, hidden) of one layer, of a task's training and of its held-out prompts.
    """
    centroids = torch.stack(
        [centred(training, centre).mean(dim=0) for training, _ in read.values()]
    )
    centroids = torch.nn.functional.normalize(centroids, dim=-1)
    own: list[float] = []
    ahead: list[float] = []
    for place, (_, held_out) in enumerate(read.values()):
        cosines = centred(held_out, centre) @ centroids.T
        mine = cosines[:, place].clone()
        cosines[:, place] = -2
        ahead += (mine - cosines.max(dim=1).values).tolist()
        own += mine.tolist()
    right = [float(distance > 0) for distance in ahead]
    nearest = (centred(everyday, centre) @ centroids.T).max(dim=1).values.tolist()
    return {
        "right": fmean(right), "prompts": len(right), "own_least": min(own),
        "ahead_least": min(ahead), "everyday_median": median(nearest),
        "everyday_most": max(nearest),
    }  # fmt: skip


def cost(engine: ReferenceEngine, asked: Sequence[Conversation]) -> float:
    """Median seconds that one prompt takes, the least of three times each; a command reads the
    everyday ones once beside them."""
    layer = usual_layer(engine)

    def seconds(conversation: Conversation) -> float:
        started = time.perf_counter()
        states(engine, [conversation], [layer])
        return time.perf_counter() - started

    return median(min(seconds(conversation) for _ in range(3)) for conversation in asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("home", type=Path)
    parser.add_argument("--source", type=Path, help="the base's folder or GGUF file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=50, help="held-out prompts of each task")
    parser.add_argument("--layers", default="", help="such as 0,15,30; default: seven, evenly")
    asked = parser.parse_args()
    home: Path = asked.home.absolute()
    with temporary_home(home):
        name = "routed" if asked.source is None else f"routed-{asked.source.stem.lower()}"
        if not base_folder(name).is_dir():
            source = asked.source or fetch_sample(say=print)
            add_base(name, str(source), scheme_by_name("nf4"), say=print)
        engine = open_engine(load_base(find_base(name), device=asked.device))
        blocks = engine.base.model.config.get_text_config().num_hidden_layers
        layers = [int(one) for one in asked.layers.split(",") if one]
        layers = layers or [round(blocks * i / 6) for i in range(7)]
        centre = states(engine, everyday_prompts(), layers)
        everyday = states(engine, [user(text) for text in EVERYDAY], layers)
        rows = []
        for bare in (False, True):
            tasks = prompts(asked.limit, bare=bare)
            read = {
                name: (states(engine, training, layers), states(engine, held_out, layers))
                for name, (training, held_out) in tasks.items()
            }
            print("without system messages" if bare else "with system messages")
            for i, layer in enumerate(layers):
                of_layer = {name: (one[:, i], other[:, i]) for name, (one, other) in read.items()}
                found = measure(of_layer, everyday[:, i], centre[:, i])
                rows.append({"layer": layer, "blocks": blocks, "bare": bare, **found})
                print(
                    f"  layer {layer:>2}: right {found['right']:.1%} of {found['prompts']}, "
                    f"own from {found['own_least']:.2f}, ahead by {found['ahead_least']:+.2f}; "
                    f"everyday {found['everyday_median']:.2f}, at most "
                    f"{found['everyday_most']:.2f}",
                    flush=True,
                )
        held_out = [prompt for _, some in prompts(8, bare=False).values() for prompt in some]
        seconds = cost(engine, held_out)
        print(f"a prompt takes {seconds:.3f} s on {engine.base.device}")
    (home / "routing.json").write_text(json.dumps({"rows": rows, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
