"""A file of rows as a task: both row forms, a fair sample, room for the longest answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import Item, Message
from adapterhub.errors import DataError
from adapterhub.evaluate.tasks.files import file_task

ROWS = [{"prompt": f"{n}+1?", "completion": str(n + 1)} for n in range(100)]


def _write(folder: Path, rows: list[Any], name: str = "sums.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_every_row_becomes_an_item_in_order(tmp_path: Path) -> None:
    data = file_task(_write(tmp_path, ROWS))
    assert data.name == "sums.jsonl"
    assert data.items[41] == Item(messages=(Message(role="user", content="41+1?"),), answer="42")
    assert len(data.items) == 100


def test_a_limit_draws_by_seed_and_keeps_the_order(tmp_path: Path) -> None:
    path = _write(tmp_path, ROWS)
    drawn = [int(item.answer) for item in file_task(path, limit=10, seed=1).items]
    assert len(set(drawn)) == 10
    assert drawn == sorted(drawn) != list(range(1, 11))
    assert file_task(path, limit=10, seed=1) == file_task(path, limit=10, seed=1)
    assert file_task(path, limit=10, seed=1).digest != file_task(path, limit=10, seed=2).digest
    assert file_task(path, limit=1000) == file_task(path)


def test_both_forms_of_the_same_rows_have_the_same_digest(tmp_path: Path) -> None:
    chat = [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in ROWS
    ]
    prompts, chats = _write(tmp_path, ROWS), _write(tmp_path, chat, "chat.jsonl")
    assert file_task(prompts).digest == file_task(chats).digest


def test_a_broken_row_is_named_even_if_it_would_not_be_drawn(tmp_path: Path) -> None:
    rows: list[Any] = [*ROWS, {"prompt": "no answer"}]
    with pytest.raises(DataError, match=r"^sums\.jsonl line 101: "):
        file_task(_write(tmp_path, rows), limit=1)


@pytest.mark.parametrize(("answer", "tokens"), [("yes", 11), ("예", 11), ("x" * 5000, 512)])
def test_replies_may_be_as_long_as_the_longest_answer(
    tmp_path: Path, answer: str, tokens: int
) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": answer}]
    assert file_task(_write(tmp_path, rows)).max_new_tokens == tokens


def test_a_row_names_the_adapter_that_is_to_answer_it(tmp_path: Path) -> None:
    row = '{"prompt": "a", "completion": "b"%s}\n'
    named, plain, wrong = (tmp_path / f"{n}.jsonl" for n in ("named", "plain", "wrong"))
    named.write_text(row % ', "adapter": "me/one"' + row % ', "adapter": null')
    plain.write_text(2 * (row % ""))
    wrong.write_text(row % ', "adapter": 3')
    assert [item.adapter for item in file_task(named).items] == ["me/one", None]
    assert file_task(named).digest != file_task(plain).digest
    with pytest.raises(DataError, match=r'wrong\.jsonl line 1: "adapter" is a number, not text'):
        file_task(wrong)
