"""A task.toml and its rows as a task: held to its digest, the same for everybody."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from adapterhub.domain.evaluation import Item, Message, TaskData
from adapterhub.errors import DataError, FormatError, IntegrityError, NotFoundError, UsageError
from adapterhub.evaluate.tasks.load import load_conversations, load_task

CHOICES = [{"prompt": f"{n}?", "choices": [str(n), "none"], "answer": 0} for n in range(30)]
PAIRS = [{"prompt": f"{n}?", "completion": str(n)} for n in range(30)]


def write(folder: Path, lines: list[dict[str, Any]], **change: Any) -> Path:
    folder.mkdir(exist_ok=True)
    data = "".join(f"{json.dumps(row)}\n" for row in lines).encode()
    (folder / "items.jsonl").write_bytes(data)
    table = {
        "name": "capitals",
        "version": "2",
        "kind": "choice" if "choices" in lines[0] else "generate",
        "rows": "items.jsonl",
        "sha256": hashlib.sha256(data).hexdigest(),
        **change,
    }
    (folder / "task.toml").write_text(tomli_w.dumps(table))
    return folder


def load(folder: Path, **more: Any) -> TaskData:
    return load_task(str(folder), **more)


def test_a_folder_or_its_file_is_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "caps", CHOICES)
    found = load(tmp_path / "caps")
    assert (found.name, found.kind, found.metrics) == ("capitals@2", "choice", ("acc", "acc_norm"))
    assert found.items[3] == Item(
        messages=(Message(role="user", content="3?"),), answer="3", choices=("3", "none")
    )
    monkeypatch.chdir(tmp_path)
    for name in ("caps", "caps/", "./caps", "caps/task.toml"):
        assert load_task(name) == found
    monkeypatch.chdir(tmp_path / "caps")
    assert load_task("task.toml") == load_task(".") == found


def test_a_declared_name_is_its_task_whatever_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "iso-dates", CHOICES)
    monkeypatch.chdir(tmp_path)
    assert load_task("iso-dates").name == "iso-dates"
    assert load_task("./iso-dates").name == "capitals@2"


def test_what_the_file_says_is_what_is_measured(tmp_path: Path) -> None:
    found = load(
        write(
            tmp_path,
            PAIRS,
            metrics=["regex", "perplexity"],
            pattern=r"\d+",
            stop=["\n"],
            chat=False,
            separator="",
            max_new_tokens=5,
        )
    )
    assert (found.metrics, found.pattern) == (("regex", "perplexity"), r"\d+")
    assert (found.stop, found.chat, found.separator) == (("\n",), False, "")
    assert found.max_new_tokens == 5


def test_some_of_the_rows_are_drawn_by_seed(tmp_path: Path) -> None:
    whole, some = load(write(tmp_path, PAIRS)), load(tmp_path, limit=5, seed=1)
    assert len(some.items) == 5
    assert set(some.items) < set(whole.items)
    assert some == load(tmp_path, limit=5, seed=1) != load(tmp_path, limit=5, seed=2)
    assert some.max_new_tokens == whole.max_new_tokens


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"version": "3"}, True),
        ({"description": "d", "license": "CC0-1.0", "source": "s"}, True),
        ({"metrics": ["f1"]}, True),
        ({"max_new_tokens": 3}, False),
        ({"metrics": ["regex"], "pattern": "a"}, False),
        ({"stop": ["\n"]}, False),
        ({"chat": False}, False),
    ],
)
def test_the_digest_is_over_what_decides_a_score(
    tmp_path: Path, change: dict[str, Any], same: bool
) -> None:
    plain = load(write(tmp_path / "plain", PAIRS)).digest
    assert (load(write(tmp_path / "changed", PAIRS, **change)).digest == plain) == same


def test_rows_that_were_changed_are_refused(tmp_path: Path) -> None:
    write(tmp_path, PAIRS)
    rows = tmp_path / "items.jsonl"
    rows.write_bytes(rows.read_bytes() + b'{"prompt": "x", "completion": "y"}\n')
    with pytest.raises(IntegrityError, match="not what capitals@2 was written for") as caught:
        load(tmp_path)
    assert hashlib.sha256(rows.read_bytes()).hexdigest() in caught.value.message


@pytest.mark.parametrize("rows", ["/etc/passwd", "../items.jsonl", "a/../../items.jsonl"])
def test_rows_lie_beside_their_task(rows: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="rows: "):
        load(write(tmp_path, PAIRS, rows=rows))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no file .*task\.toml"):
        load(tmp_path)
    with pytest.raises(NotFoundError, match="which the task capitals asks about"):
        load(write(tmp_path, PAIRS, rows="others.jsonl"))


def test_a_wrong_row_and_a_wrong_metric_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^items\.jsonl line 31: "):
        load(write(tmp_path, [*CHOICES, {"prompt": "x"}]), limit=1)
    with pytest.raises(FormatError, match="of the kind choice is not measured by bleu"):
        load(write(tmp_path, CHOICES, metrics=["bleu"]))
    write(tmp_path, [*PAIRS, {"prompt": "x", "completion": "{"}], metrics=["json_equal"])
    with pytest.raises(FormatError, match="an item 31 whose answer is no JSON"):
        load(tmp_path, limit=1)


def test_raw_text_is_no_conversation(tmp_path: Path) -> None:
    folder = write(tmp_path, PAIRS, chat=False)
    with pytest.raises(UsageError, match="capitals@2 asks about raw text"):
        load_conversations(str(folder))
    write(tmp_path, PAIRS)
    assert load_conversations(str(folder)).chat
