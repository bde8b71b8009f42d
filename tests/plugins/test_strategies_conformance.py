"""Our own strategies keep the promises of a strategy."""

from __future__ import annotations

import pytest

from adapterhub.testing import StrategyConformance

pytestmark = pytest.mark.models


class TestLinear(StrategyConformance):
    strategy = "linear"


class TestSvd(StrategyConformance):
    strategy = "svd"
