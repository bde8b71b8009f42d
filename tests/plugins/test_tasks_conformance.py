"""Our own tasks keep the promises of a task."""

from __future__ import annotations

from adapterhub.testing import TaskConformance


class TestIsoDates(TaskConformance):
    task = "iso-dates"


class TestStrictJson(TaskConformance):
    task = "strict-json"
