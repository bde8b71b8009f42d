"""Find the task a person named: a file of rows, a task.toml, or what a plugin declares.

Does not know what is measured on it.
"""

from __future__ import annotations

from pathlib import Path

from adapterhub.domain.evaluation import TaskData
from adapterhub.domain.method import Task
from adapterhub.domain.protocols import TaskSource
from adapterhub.errors import NotFoundError, PluginError, UsageError
from adapterhub.evaluate.tasks.described import described_task
from adapterhub.evaluate.tasks.files import file_task
from adapterhub.formats.task_file import TASK_FILE
from adapterhub.plugin.catalog import catalog, load_target

DEFAULT_ITEMS = 50


def load_task(name_or_path: str, *, limit: int | None = None, seed: int = 0) -> TaskData:
    """The rows of a .jsonl file or of a folder's task.toml, or held-out items of a named task (50
    unless `limit` is given). A name that a plugin declares is its task, whatever is in the way.

    Raises UsageError, NotFoundError with a did-you-mean, FormatError for a task.toml, or DataError
    naming the line.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} items measure nothing", hint="ask for at least one: --limit 50")
    path = Path(name_or_path)
    if name_or_path.endswith(".toml") or (_is_path(name_or_path) and path.is_dir()):
        return described_task(path, limit=limit, seed=seed)
    if _is_path(name_or_path):
        return file_task(path, limit=limit, seed=seed)
    if name_or_path not in catalog().tasks.entries and (path / TASK_FILE).is_file():
        return described_task(path, limit=limit, seed=seed)
    return _held_out(task_record(name_or_path), limit or DEFAULT_ITEMS, seed=seed)


def load_conversations(name: str, *, limit: int | None = None) -> TaskData:
    """`load_task`, for what only knows conversations. Raises UsageError for raw text."""
    task = load_task(name, limit=limit)
    if not task.chat:
        raise UsageError(
            f"{task.name} asks about raw text, and this is measured on conversations",
            hint="name a task without `chat = false`",
        )
    return task


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
