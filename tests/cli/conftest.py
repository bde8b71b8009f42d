"""The console script with a home of its own, an adapter to publish, and one that is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapter_files import write_lora
from tests.base_records import write_base_record
from tests.command_line import CommandLine


@pytest.fixture
def adapterhub(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home", cwd=tmp_path)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "adapter")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A machine on which `./adapter` is published and pulled as acme/tiny-lora, to be read only."""
    place = tmp_path_factory.mktemp("stocked")
    run = CommandLine(place / "home", cwd=place)
    write_lora(place / "adapter")
    run.ok("push", "adapter", "acme/tiny-lora")
    run.ok("pull", "acme/tiny-lora")
    return run


@pytest.fixture
def published(adapterhub: CommandLine, adapter: Path) -> str:
    """A ref that the remote `local` has."""
    adapterhub.ok("push", adapter, "acme/tiny-lora")
    return "acme/tiny-lora"


@pytest.fixture
def named_base(adapterhub: CommandLine) -> str:
    """The name of a base that can be found and not be loaded."""
    return write_base_record(adapterhub.home, "tiny")
