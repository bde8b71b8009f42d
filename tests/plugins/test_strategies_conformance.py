"""Our own strategies keep the promises of a strategy."""

from __future__ import annotations

import pytest

from adapterhub.domain.composition import NEVER_MERGED
from adapterhub.plugin.catalog import catalog
from adapterhub.testing import StrategyConformance

pytestmark = pytest.mark.models

OURS = [
    "linear",
    "svd",
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
    "della",
    "breadcrumbs",
    "slerp",
    "knots",
    "core_space",
]


def test_every_bundled_strategy_that_merges_is_held_to_them() -> None:
    bundled = {
        entry.record.name
        for entry in catalog().strategies
        if entry.record.target.startswith("adapterhub_plugins.")
    }
    assert bundled == {*OURS, *NEVER_MERGED}


@pytest.mark.parametrize("name", OURS)
class TestOurs(StrategyConformance):
    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        type(self).strategy = name
