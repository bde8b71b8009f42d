"""A home that the tests of this folder share, and one of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases added here are added once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
