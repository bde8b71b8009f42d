"""One byte changed on the way or at rest: found wherever it lies, never accepted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapterhub.domain.refs import parse_ref
from adapterhub.errors import IntegrityError
from adapterhub.hub import client
from adapterhub.hub.home import registry_dir
from adapterhub.hub.records import record_path, unreadable
from adapterhub.hub.stores.commits import Identity
from tests.bench.changed_bytes import measure

REF = parse_ref("user/en2ko-lora")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk changes no byte, and is nearly all of the time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.mark.usefixtures("hasty")
def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    found = measure(tmp_path, count=260, seed=1)
    assert found.missed == []
    assert sum(found.counts.values()) == 260
    assert len(found.counts) == 13


@pytest.mark.long
@pytest.mark.usefixtures("hasty")
def test_ten_thousand_changed_bytes_are_found(tmp_path: Path) -> None:
    found = measure(tmp_path, count=10_000)
    assert found.missed == []
    assert sum(found.counts.values()) == 10_000


def test_a_date_that_was_changed_is_a_damaged_file(adapter: Path) -> None:
    client.push(adapter, REF)
    path = registry_dir() / "repos" / REF.id / "repo.json"
    path.write_text(path.read_text().replace("20", "21", 1))
    with pytest.raises(IntegrityError, match=r"repo\.json has been changed"):
        client.pull(REF)


def test_a_repository_from_before_there_were_seals_is_read(adapter: Path) -> None:
    client.push(adapter, REF)
    path = registry_dir() / "repos" / REF.id / "repo.json"
    lines = [line for line in path.read_text().splitlines() if "sha256" not in line]
    path.write_text("\n".join(lines))
    assert len(lines) == len(Identity.__slots__) + 2
    assert client.pull(REF).folder.is_dir()


def test_an_adapter_whose_record_is_damaged_is_named(adapter: Path) -> None:
    client.push(adapter, REF)
    pulled = client.pull(REF)
    record_path(pulled.folder).write_text("{}")
    assert client.installed() == []
    assert unreadable() == [f"{REF.id}@{pulled.snapshot.commit}"]
    client.pull(REF)
    assert unreadable() == []
