"""Find the task a person named: a file of rows, or a task that a plugin declares.

Does not know what is measured on it.
"""

from __future__ import annotations

from pathlib import Path

from adapterhub.domain.evaluation import TaskData
from adapterhub.domain.method import Task
from adapterhub.domain.protocols import TaskSource
from adapterhub.errors import NotFoundError, PluginError, UsageError
from adapterhub.evaluate.tasks.files import file_task
from adapterhub.plugin.catalog import catalog, load_target

DEFAULT_ITEMS = 50


def load_task(name_or_path: str, *, limit: int | None = None, seed: int = 0) -> TaskData:
    """The rows of a .jsonl file, or held-out items of a named task (50 unless `limit` is given).

    Raises UsageError, NotFoundError with a did-you-mean, or DataError naming the line.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} items measure nothing", hint="ask for at least one: --limit 50")
    if _is_path(name_or_path):
        return file_task(Path(name_or_path), limit=limit, seed=seed)
    return _held_out(task_record(name_or_path), limit or DEFAULT_ITEMS, seed=seed)


def task_record(name: str) -> Task:
    """What a plugin declared under this name. Raises NotFoundError, PluginError or UsageError."""
    try:
        record = catalog().tasks[name]
    except NotFoundError as error:
        raise NotFoundError(
            error.message, hint=f"{error.hint} A file of rows is named by its path: ./rows.jsonl"
        ) from error
    if record.modality != "causal-lm":
        raise UsageError(
            f"the task {name} is for {record.modality} bases, and only text is evaluated",
            hint="`adapterhub plugins` shows the tasks that are installed",
        )
    return record


def _is_path(text: str) -> bool:
    return text.endswith((".jsonl", ".json")) or "/" in text or "\\" in text


def _held_out(record: Task, n: int, *, seed: int) -> TaskData:
    source: TaskSource = load_target(record.target)()
    data = source.held_out(n, seed=seed)
    if not data.items:
        raise PluginError(
            f"the task {record.name} has no held-out items",
            hint="report it to the plugin that `adapterhub plugins` names",
        )
    return data
