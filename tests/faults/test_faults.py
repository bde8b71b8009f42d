"""Every planted fault is loud, and what we say names it; the sound adapter hears nothing of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.faults.fault import Fault
from tests.faults.good import GOOD, Good, alarms
from tests.faults.ground import ADAPTERS, Ground
from tests.faults.loaders import Case, by_us
from tests.faults.measured import MEASURED
from tests.faults.table import FAULTS, told

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Bases of one thread: with two workers, torch's own threads only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Ground(tmp_path_factory.mktemp("home"))
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_loud_and_named(fault: Fault, ground: Ground) -> None:
    found = told(fault, ground)
    assert found.kind in ("raise", "warn"), found.message
    assert re.search(fault.says, found.message, re.DOTALL), found.message


@pytest.mark.filterwarnings("ignore")
def test_nothing_that_names_a_fault_is_said_of_a_sound_adapter(ground: Ground) -> None:
    for name, made in ADAPTERS.items():
        folder = ground.adapter(name)
        case = Case(ground=ground, folder=folder, base=made.base, use="load", beside=folder)
        found = by_us(case)
        assert found.kind == "warn", found.message
        heard = [f.name for f in FAULTS if re.search(f.says, found.message, re.DOTALL)]
        assert heard == [], found.message


def test_there_are_as_many_as_are_promised() -> None:
    assert len(MEASURED) == 21
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 41
    assert len({good.name for good in GOOD}) == len(GOOD) >= 100
    assert len([good for good in GOOD if good.quick]) >= 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "good",
    [pytest.param(good, marks=[] if good.quick else pytest.mark.long) for good in GOOD],
    ids=lambda good: good.name,
)
def test_a_good_adapter_raises_no_alarm(good: Good, ground: Ground, tmp_path: Path) -> None:
    assert alarms(good, ground, tmp_path / "adapter") == []
