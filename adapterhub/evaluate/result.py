"""What an evaluation found, as a value and as JSON.

Does not know how it was measured or how it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.evaluation import Row, TaskData


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One subject's answer to one item. `given` is what was written or chosen, `score` that of the
    task's first metric of it; both are None when nothing was. `logprob` (of the expected answer) is
    None when nothing was scored, and so is `tokens`."""

    adapter: str
    task: str
    item: int
    question: str
    expected: str
    given: str | None = None
    score: float | None = None
    logprob: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """`base_rows` and `rows` (the adapters') hold one row per subject, task and metric; `tasks`
    are those that were asked, so that a result can be stored with its task's digest."""

    base: BaseSpec
    tasks: tuple[TaskData, ...]
    base_rows: tuple[Row, ...]
    rows: tuple[Row, ...]
    answers: tuple[Answer, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """What `eval --json` prints; a figure that one item cannot give is null."""
        return {
            "base": {
                "name": self.base.name,
                "id": self.base.id,
                "revision": self.base.revision,
                "family": self.base.family,
                "scheme": str(self.base.scheme),
                "parameters": self.base.parameters,
                "rows": [_row_json(row) for row in self.base_rows],
            },
            "rows": [_row_json(row) for row in self.rows],
        }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "adapter": row.adapter,
        "task": row.task,
        "metric": row.metric,
        "score": row.score,
        "stderr": None if math.isnan(row.stderr) else row.stderr,
        "delta": row.delta,
        "ci95": None if row.ci95 is None else list(row.ci95),
        "n": row.n,
        **({"signature": row.signature} if row.signature else {}),
    }
