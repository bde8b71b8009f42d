"""Rows to batches: every row counts once an epoch, and only its answer is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.domain.protocols import Example
from adapterhub.errors import DataError, NotFoundError, UsageError
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.train.data import (
    EVAL_ROWS,
    check_lengths,
    collate,
    collate_packed,
    load_eval_items,
    load_items,
)

pytestmark = pytest.mark.models


def example(n: int, *, length: int = 4, answer_start: int = 2) -> Example:
    return Example(ids=tuple(range(n, n + length)), answer_start=answer_start, line=n)


EXAMPLES = [example(n) for n in range(10)]


# --- loading ----------------------------------------------------------------------------------


def test_rows_of_a_file_keep_their_lines(rows: Path) -> None:
    items, _ = load_items(str(rows), seed=0)
    assert [line for line, _ in items] == [1, 2, 3, 4]
    assert items[0][1].messages[0].content == "2 + 2"
    assert items[0][1].answer == "4"


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ('{"prompt": "a"}', "neither"),
        ('{"prompt": "a", "completion": ', "not JSON"),
        ('{"prompt": "a", "completion": ""}', "is empty"),
        ('{"messages": []}', "not a list with messages"),
    ],
)
def test_a_broken_row_is_named_by_its_line(row: str, fact: str, rows: Path) -> None:
    with rows.open("a") as file:
        file.write(f"\n{row}\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl line 6.*{fact}"):
        load_items(str(rows), seed=0)


def test_the_digest_is_that_of_the_rows_and_not_of_the_file(rows: Path, tmp_path: Path) -> None:
    spaced, other = tmp_path / "spaced.jsonl", tmp_path / "other.jsonl"
    spaced.write_text(rows.read_text().replace("\n", "\n\n"))
    other.write_text(rows.read_text().replace("blue", "grey"))
    digest, same, changed = (load_items(str(p), seed=0)[1] for p in (rows, spaced, other))
    assert digest == same
    assert digest != changed


def test_a_task_gives_the_rows_of_its_seed() -> None:
    task = next(iter(catalog().tasks)).record.name
    first, again, other = (load_items(task, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("data", ["rows.jsonl", "missing/rows"])
def test_a_file_that_is_not_there_is_not_taken_for_a_task(data: str) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_items(data, seed=0)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(NotFoundError, match="no task is called"):
        load_items("no-such-task", seed=0)


def test_rows_to_evaluate_on_come_from_a_file_as_they_are(rows: Path) -> None:
    items, sha256 = load_items(str(rows), seed=0)
    assert load_eval_items(str(rows), seed=0, trained=()) == (items, sha256, 0)


def test_rows_that_are_trained_on_are_left_out_of_a_file_and_counted(rows: Path) -> None:
    items, sha256 = load_items(str(rows), seed=0)
    kept, digest, dropped = load_eval_items(str(rows), seed=0, trained=items[1:])
    assert (kept, dropped) == (items[:1], 3)
    assert digest != sha256


def test_a_file_of_nothing_but_rows_that_are_trained_on_is_refused(
    rows: Path, tmp_path: Path
) -> None:
    items, _ = load_items(str(rows), seed=0)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(rows.read_text().splitlines())))
    with pytest.raises(UsageError, match="holds the rows that are trained on"):
        load_eval_items(str(turned), seed=0, trained=items)


@pytest.mark.parametrize("task", [entry.record.name for entry in catalog().tasks])
@pytest.mark.parametrize("seed", [0, 1, 12])
def test_a_task_evaluates_on_rows_neither_trained_on_nor_held_out_for_eval(
    task: str, seed: int
) -> None:
    trained, _ = load_items(task, seed=seed)
    chosen = {item for _, item in load_eval_items(task, seed=seed, trained=trained)[0]}
    reported = {
        item
        for other in range(5)
        for item in load_target(catalog().tasks[task].target)().held_out(1000, seed=other).items
    }
    assert len(chosen) == EVAL_ROWS
    assert not chosen & {item for _, item in trained}
    assert not chosen & reported
    assert not {item.messages for item in chosen} & {item.messages for item in reported}


def test_a_row_is_never_cut() -> None:
    check_lengths(EXAMPLES, limit=4, name="rows.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl line 0 has 4 tokens, the limit is 3"):
        check_lengths(EXAMPLES, limit=3, name="rows.jsonl")


# --- collating --------------------------------------------------------------------------------


def test_a_short_row_is_padded_on_the_left() -> None:
    rows = (example(10, length=3), example(20, length=5))
    batch = collate(rows, pad=0, device="cpu")
    assert batch.pop("examples") == rows
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[0, 0, 10, 11, 12], [20, 21, 22, 23, 24]],
        "attention_mask": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]],
        "position_ids": [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]],
        "labels": [[-100, -100, -100, -100, 12], [-100, -100, 22, 23, 24]],
        "columns": [1, 2, 3],
    }


def test_packed_rows_have_no_mask_and_count_their_positions_anew() -> None:
    rows = (example(10, length=3), example(20, length=5), example(30, length=4))
    batch = collate_packed(rows, limit=8, pad=0, device="cpu")
    assert batch.pop("attention_mask") is None
    assert [row.line for row in batch.pop("examples")] == [20, 30, 10]
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[20, 21, 22, 23, 24, 0, 0], [30, 31, 32, 33, 10, 11, 12]],
        "position_ids": [[0, 1, 2, 3, 4, 0, 1], [0, 1, 2, 3, 0, 1, 2]],
        "labels": [
            [-100, -100, 22, 23, 24, -100, -100],
            [-100, -100, 32, 33, -100, -100, 12],
        ],
        "columns": [1, 2, 3, 5],
    }


def test_the_labels_of_a_packed_batch_are_the_answers_of_its_examples_in_order() -> None:
    batch = collate_packed(EXAMPLES, limit=9, pad=0, device="cpu")
    counted = batch["labels"][batch["labels"] != -100].tolist()
    answers = [token for row in batch["examples"] for token in row.ids[row.answer_start :]]
    assert counted == answers
