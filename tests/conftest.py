"""Tiny models run on one thread: starting a second costs more than it computes."""

from __future__ import annotations

import functools

import pytest

# Another distribution, whose own tests run where it is installed: end_to_end/test_outsider.py.
collect_ignore = ["outsider"]


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
