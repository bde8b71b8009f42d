"""The bundled tasks: what is asked was never trained on, and every prompt explains itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pytest

from adapterhub.domain.protocols import TaskSource
from adapterhub.formats.rows import row_to_messages
from adapterhub_plugins.demo_tasks import adapterhub_tasks, dates, names, records
from adapterhub_plugins.demo_tasks.dates import IsoDates
from adapterhub_plugins.demo_tasks.drawing import distinct
from adapterhub_plugins.demo_tasks.records import StrictJson

SEEDS = (0, 1, 7, 1234)
SOURCES = [pytest.param(IsoDates, id="iso-dates"), pytest.param(StrictJson, id="strict-json")]
Source = Callable[[], TaskSource]


def _question(row: dict[str, Any]) -> str:
    return str(row["messages"][1]["content"])


def _answer(row: dict[str, Any]) -> str:
    return str(row["messages"][-1]["content"])


def _trained_facts() -> list[dict[str, Any]]:
    return [json.loads(_answer(r)) for s in SEEDS for r in StrictJson().train_rows(1000, seed=s)]


def _asked_facts() -> list[dict[str, Any]]:
    return [
        json.loads(item.answer)
        for seed in SEEDS
        for item in StrictJson().held_out(300, seed=seed).items
    ]


def test_every_declared_task_leads_to_its_source() -> None:
    targets = {task.name: task.target.partition(":")[2] for task in adapterhub_tasks()}
    assert targets == {"iso-dates": "IsoDates", "strict-json": "StrictJson"}


def test_no_asked_date_shares_a_year_or_a_day_of_the_year_with_a_trained_one() -> None:
    trained = {
        date.fromisoformat(_answer(row))
        for seed in SEEDS
        for row in IsoDates().train_rows(3000, seed=seed)
    }
    asked = {
        date.fromisoformat(item.answer)
        for seed in SEEDS
        for item in IsoDates().held_out(300, seed=seed).items
    }
    assert not {day.year for day in trained} & {day.year for day in asked}
    assert not {(d.month, d.day) for d in trained} & {(d.month, d.day) for d in asked}


def test_every_month_and_every_day_number_is_trained() -> None:
    assert {month for month, _ in dates.TRAIN_DAYS} == set(range(1, 13))
    assert {day for _, day in dates.TRAIN_DAYS} == set(range(1, 32))


@pytest.mark.parametrize("key", ["name", "age", "city"])
def test_no_asked_fact_was_ever_trained(key: str) -> None:
    assert not {facts[key] for facts in _trained_facts()} & {facts[key] for facts in _asked_facts()}


@pytest.mark.parametrize("source", SOURCES)
def test_no_asked_sentence_or_answer_is_a_training_row(source: Source) -> None:
    rows = [row for seed in SEEDS for row in source().train_rows(2000, seed=seed)]
    trained = {_question(row) for row in rows} | {_answer(row) for row in rows}
    for item in source().held_out(300).items:
        assert item.messages[-1].content not in trained
        assert item.answer not in trained


def test_the_worked_examples_give_no_held_out_value_away() -> None:
    assert (3, 5) in dates.TRAIN_DAYS
    assert 2001 in dates.TRAIN_YEARS
    assert 36 in records.TRAIN_AGES
    assert "Ada" not in names.HELD_OUT_NAMES
    assert "London" not in names.HELD_OUT_CITIES


def test_the_pools_are_large_enough_to_teach_copying() -> None:
    assert len(names.TRAIN_NAMES) >= 60
    assert len(names.TRAIN_CITIES) >= 60
    assert len(names.HELD_OUT_NAMES) >= 25
    assert len(names.HELD_OUT_CITIES) >= 25
    every = [*names.TRAIN_NAMES, *names.HELD_OUT_NAMES]
    cities = [*names.TRAIN_CITIES, *names.HELD_OUT_CITIES]
    assert len(every) == len(set(every))
    assert len(cities) == len(set(cities))
    assert all(name.isascii() for name in [*every, *cities])


def test_date_answers_are_the_dates_that_were_asked() -> None:
    ordinal = str.maketrans("", "", "stndrh")
    for item in IsoDates().held_out(300).items:
        month, day, year = _read_date(item.messages[-1].content, ordinal)
        expected = datetime.strptime(f"{month[:3]} {day} {year}", "%b %d %Y").date()
        assert item.answer == expected.isoformat()


def _read_date(text: str, ordinal: dict[int, int | None]) -> tuple[str, str, str]:
    words = text.replace(",", "").removeprefix("the ").replace(" of ", " ").split()
    first, second, year = words
    month, day = (first, second) if first.isalpha() else (second, first)
    return month, day.translate(ordinal), year


@pytest.mark.parametrize(
    ("day", "suffix"),
    [(1, "st"), (2, "nd"), (3, "rd"), (4, "th"), (11, "th"), (12, "th"), (13, "th"), (22, "nd")],
)
def test_ordinals_are_english(day: int, suffix: str) -> None:
    assert dates._suffix(day) == suffix


def test_all_five_written_forms_of_a_date_differ_even_in_may() -> None:
    assert len({dates._written(form, 1998, 5, 14) for form in dates.FORMS}) == 5


def test_record_answers_hold_the_facts_of_the_sentence_on_one_line() -> None:
    for item in StrictJson().held_out(300).items:
        facts = json.loads(item.answer)
        assert list(facts) == ["name", "age", "city"]
        assert "\n" not in item.answer
        assert all(str(value) in item.messages[-1].content for value in facts.values())


@pytest.mark.parametrize("source", SOURCES)
def test_every_prompt_states_the_rule_and_shows_an_example(source: Source) -> None:
    systems = {row["messages"][0]["content"] for row in source().train_rows(50)}
    systems |= {item.messages[0].content for item in source().held_out(50).items}
    assert len(systems) == 1
    system = systems.pop()
    assert "Reply with" in system
    assert "Example: " in system
    assert " -> " in system
    assert len(system) < 200


@pytest.mark.parametrize("source", SOURCES)
def test_training_rows_are_rows_that_the_reader_takes(source: Source) -> None:
    for line, row in enumerate(source().train_rows(50), start=1):
        messages, answer = row_to_messages(row, line, "task")
        assert [message.role for message in messages] == ["system", "user"]
        assert answer == _answer(row)


@pytest.mark.parametrize("source", SOURCES)
def test_generation_is_reproducible_and_differs_by_seed(source: Source) -> None:
    assert source().train_rows(100, seed=3) == source().train_rows(100, seed=3)
    assert source().train_rows(100, seed=3) != source().train_rows(100, seed=4)
    assert source().held_out(50, seed=3) == source().held_out(50, seed=3)
    assert source().held_out(50, seed=3).digest != source().held_out(50, seed=4).digest


@pytest.mark.parametrize(
    ("source", "digest"),
    [
        (IsoDates, "a11931b2f4caa032"),
        (StrictJson, "18d9d6f19fb02136"),
    ],
)
def test_the_default_items_stay_the_same_for_ever(source: Source, digest: str) -> None:
    assert source().held_out(50).digest.startswith(digest)


@pytest.mark.parametrize("source", SOURCES)
def test_a_smaller_task_is_the_beginning_of_a_larger_one(source: Source) -> None:
    assert source().held_out(50).items[:10] == source().held_out(10).items


@pytest.mark.parametrize("source", SOURCES)
def test_no_question_is_asked_twice(source: Source) -> None:
    questions = [_question(row) for row in source().train_rows(5000)]
    assert len(set(questions)) == len(questions)


def test_numbers_repeat_only_once_the_pool_is_empty() -> None:
    drawn = list(distinct(10, 25, seed=0))
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert len(set(drawn[20:])) == 5
