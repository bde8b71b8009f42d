"""A home that the tests of this folder share, and rows to train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterhub.models.loader import Base
from adapterhub.testing.practice import ROWS
from adapterhub.testing.tiny import add_tiny_base


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path) -> Base:
    return add_tiny_base("llama", "bf16", home)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file with as many rows as ROWS."""
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": question, "completion": answer}) for question, answer in ROWS]
    path.write_text("\n".join(lines) + "\n")
    return path
