"""Options that several commands share, each spelled the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


def base_option(function: F) -> F:
    return click.option(
        "--base", "base_name", metavar="NAME", help="The base to use; default: the adapter's own."
    )(function)


def named_base(name: str | None) -> BaseSpec | None:
    """The base that --base names, if it was given."""
    if name is None:
        return None
    from adapterhub.models.bases import find_base

    return find_base(name)


def device_option(function: F) -> F:
    return click.option(
        "--device", metavar="DEVICE", help="cpu, cuda or cuda:N; default: the best there is."
    )(function)


def centroid_option(function: F) -> F:
    return click.option(
        "--centroid", metavar="FILE|TASK", help="Rows like those it is for, for `route` to go by."
    )(function)


def allow_option(function: F) -> F:
    return click.option(
        "--allow", multiple=True, metavar="CODE", help="Go on in spite of this problem."
    )(function)


def yes_option(function: F) -> F:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def dry_run_option(function: F) -> F:
    return click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")(
        function
    )
