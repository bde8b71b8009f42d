"""The order of tests, and their threads: tiny models run on one, for starting a second costs more
than it computes."""

from __future__ import annotations

import functools

import pytest

# Another distribution, whose own tests run where it is installed: end_to_end/test_outsider.py.
collect_ignore = ["outsider"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that one worker is not left alone with them at the end."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("models") is None:
        return
    import torch

    usual = _usual_threads()
    torch.set_num_threads(usual if item.get_closest_marker("weights") else 1)


@functools.cache
def _usual_threads() -> int:
    import torch

    return torch.get_num_threads()
