"""Two small tasks that a small base fails and an adapter learns in a minute on two cores."""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Task, hookimpl


@hookimpl
def adapterhub_tasks() -> Sequence[Task]:
    return [
        Task(
            name="iso-dates",
            summary="write a date in ISO form",
            target="adapterhub_plugins.demo_tasks.dates:IsoDates",
        ),
        Task(
            name="strict-json",
            summary="turn a sentence into one line of JSON",
            target="adapterhub_plugins.demo_tasks.records:StrictJson",
        ),
    ]
