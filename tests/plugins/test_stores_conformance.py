"""A registry in a folder and a hub keep the promises of a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from adapterhub.domain.stores import Store
from adapterhub.plugin.catalog import catalog
from adapterhub.testing import StoreConformance
from tests.hub_server import running_hub


class TestDirectory(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return catalog().open_store((tmp_path / "a registry").as_uri())


class TestHuggingFace(StoreConformance):
    tombstones = False

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        monkeypatch.setenv("ADAPTERHUB_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        with running_hub() as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setenv("ADAPTERHUB_TOKEN_HUB", hub.token)
            yield catalog().open_store(hub.url)
            close_session()
