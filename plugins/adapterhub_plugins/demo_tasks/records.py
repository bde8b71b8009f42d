"""Sentences about a person, and the same facts as one line of JSON.

No name, city or age of a held-out sentence occurs in a training one: what an adapter can learn is
to copy, not to recall.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from adapterhub.domain.evaluation import TaskData
from adapterhub_plugins.demo_tasks.drawing import chat_row, distinct, task_data
from adapterhub_plugins.demo_tasks.names import (
    HELD_OUT_CITIES,
    HELD_OUT_NAMES,
    TRAIN_CITIES,
    TRAIN_NAMES,
)

SYSTEM = (
    "Turn the sentence into one line of JSON with the keys name, age, city. "
    "Reply with the JSON only. "
    'Example: Ada from London is 36. -> {"name": "Ada", "age": 36, "city": "London"}'
)
TEMPLATES = (
    "{name} from {city} is {age}.",
    "{name} is {age} years old and lives in {city}.",
    "{age}-year-old {name} lives in {city}.",
    "Meet {name}, {age}, from {city}.",
    "In {city} lives {name}, aged {age}.",
)
AGES = range(18, 91)
HELD_OUT_AGES = tuple(age for age in AGES if age % 5 == 3)
TRAIN_AGES = tuple(age for age in AGES if age % 5 != 3)


class StrictJson:
    """The task `strict-json`."""

    def train_rows(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        return [
            chat_row(SYSTEM, question, answer)
            for question, answer in _pairs(TRAIN_NAMES, TRAIN_CITIES, TRAIN_AGES, n, seed=seed)
        ]

    def held_out(self, n: int, *, seed: int = 0) -> TaskData:
        pairs = _pairs(HELD_OUT_NAMES, HELD_OUT_CITIES, HELD_OUT_AGES, n, seed=seed)
        return task_data("strict-json", SYSTEM, pairs, max_new_tokens=36)


def _pairs(
    names: Sequence[str], cities: Sequence[str], ages: Sequence[int], n: int, *, seed: int
) -> list[tuple[str, str]]:
    """n of all (name, city, age, template) combinations as (sentence, JSON)."""
    pairs = []
    size = len(names) * len(cities) * len(ages) * len(TEMPLATES)
    for number in distinct(size, n, seed=seed):
        rest, template = divmod(number, len(TEMPLATES))
        rest, age = divmod(rest, len(ages))
        name, city = divmod(rest, len(cities))
        facts = {"name": names[name], "age": ages[age], "city": cities[city]}
        pairs.append((TEMPLATES[template].format(**facts), json.dumps(facts)))
    return pairs
