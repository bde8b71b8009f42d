"""The promises a task makes, as tests that a plugin inherits.

class TestBackwards(TaskConformance):
    task = "backwards"
"""

from __future__ import annotations

from typing import ClassVar

import pytest

from adapterhub.domain.protocols import TaskSource
from adapterhub.evaluate.tasks.rules import task_fault
from adapterhub.formats.rows import row_to_messages
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.testing.declaring import check_declared

ROWS = 200
ITEMS = 50


class TaskConformance:
    """Set `task`; a task without rows of its own to train on sets `trains` to False."""

    task: ClassVar[str]
    trains: ClassVar[bool] = True

    @property
    def source(self) -> TaskSource:
        made: TaskSource = load_target(catalog().tasks[self.task].target)()
        return made

    def test_it_is_found_by_its_entry_point(self) -> None:
        owner = catalog().tasks.entries[self.task].owner
        assert any(a.origin == owner and a.problem is None for a in catalog().admissions)

    def test_declaring_it_imports_no_torch(self) -> None:
        check_declared("tasks", self.task)

    def test_it_makes_as_many_rows_as_asked_for(self) -> None:
        if self.trains:
            assert len(self.source.train_rows(7)) == 7
        assert len(self.source.held_out(7).items) == 7

    def test_its_rows_are_conversations_with_an_answer(self) -> None:
        data = self.source.held_out(ITEMS)
        for line, row in enumerate(self.source.train_rows(ROWS) if self.trains else (), start=1):
            messages, answer = row_to_messages(row, line, self.task)
            assert messages
            assert answer
        for item in data.items:
            assert [turn.role for turn in item.messages[-1:]] == ["user"] or not data.chat
            assert item.answer

    def test_it_can_be_measured_by_its_metrics(self) -> None:
        assert task_fault(self.source.held_out(ITEMS)) is None

    @pytest.mark.parametrize("seeds", [(0, 0), (1, 2)])
    def test_what_is_asked_is_never_trained_on(self, seeds: tuple[int, int]) -> None:
        if not self.trains:
            return
        trained = {
            row_to_messages(row, line, self.task)[0][-1:]
            for line, row in enumerate(self.source.train_rows(ROWS, seed=seeds[0]), start=1)
        }
        asked = {item.messages[-1:] for item in self.source.held_out(ITEMS, seed=seeds[1]).items}
        assert trained & asked == set()

    def test_a_seed_decides_its_items_and_their_digest(self) -> None:
        first, again, other = (self.source.held_out(ITEMS, seed=seed) for seed in (3, 3, 4))
        assert first == again
        assert (first.items == other.items) == (first.digest == other.digest)
        if self.trains:
            assert self.source.train_rows(9, seed=3) == self.source.train_rows(9, seed=3)
