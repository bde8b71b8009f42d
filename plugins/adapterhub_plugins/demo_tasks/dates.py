"""Dates as people write them, and the same dates in ISO form.

Held-out dates share neither a year nor a day of the year with any training date.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from typing import Any

from adapterhub.domain.evaluation import TaskData
from adapterhub_plugins.demo_tasks.drawing import chat_row, distinct, task_data

SYSTEM = (
    "Write the date as YYYY-MM-DD. Reply with the date only. Example: 5 March 2001 -> 2001-03-05"
)
FORMS = (
    "{month} {day}, {year}",
    "{day} {month} {year}",
    "the {day}{suffix} of {month} {year}",
    "{month} {day}{suffix}, {year}",
    "{short} {day} {year}",
)
# Not calendar.month_name, which speaks the language of the machine's locale.
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
TRAIN_YEARS = range(1950, 2020)
HELD_OUT_YEARS = range(2020, 2050)
# Without 29 February: not every year has one. 1999 stands for any year that is not a leap year.
DAYS = tuple(
    (month, day)
    for month in range(1, 13)
    for day in range(1, calendar.monthrange(1999, month)[1] + 1)
)
HELD_OUT_DAYS = DAYS[2::5]
TRAIN_DAYS = tuple(day for day in DAYS if day not in HELD_OUT_DAYS)


class IsoDates:
    """The task `iso-dates`."""

    def train_rows(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        return [
            chat_row(SYSTEM, question, answer)
            for question, answer in _pairs(TRAIN_YEARS, TRAIN_DAYS, n, seed=seed)
        ]

    def held_out(self, n: int, *, seed: int = 0) -> TaskData:
        pairs = _pairs(HELD_OUT_YEARS, HELD_OUT_DAYS, n, seed=seed)
        return task_data("iso-dates", SYSTEM, pairs, max_new_tokens=14)


def _pairs(
    years: Sequence[int], days: Sequence[tuple[int, int]], n: int, *, seed: int
) -> list[tuple[str, str]]:
    """n of all (date, form) combinations as (written form, ISO form)."""
    pairs = []
    for number in distinct(len(years) * len(days) * len(FORMS), n, seed=seed):
        date, form = divmod(number, len(FORMS))
        which_day, which_year = divmod(date, len(years))
        month, day = days[which_day]
        year = years[which_year]
        pairs.append((_written(FORMS[form], year, month, day), f"{year}-{month:02}-{day:02}"))
    return pairs


def _written(form: str, year: int, month: int, day: int) -> str:
    name = MONTHS[month - 1]
    return form.format(year=year, month=name, short=name[:3], day=day, suffix=_suffix(day))


def _suffix(day: int) -> str:
    """The ending of an English ordinal: 1st, 2nd, 3rd, 11th, 21st."""
    if day in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
