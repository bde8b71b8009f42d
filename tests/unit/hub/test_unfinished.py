"""What a killed push or pull had begun is cleared away; what was finished never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.domain.refs import parse_ref
from adapterhub.hub import client
from adapterhub.hub.home import cache_dir, registry_dir
from adapterhub.hub.records import record_path
from tests.adapter_files import write_lora
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")


@pytest.fixture
def repo() -> Path:
    return registry_dir() / "repos" / REF.id


@pytest.fixture
def revised(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "revised", lora_alpha=8)


def commits(repo: Path) -> set[str]:
    return {path.stem for path in (repo / "commits").iterdir()}


def test_a_commit_that_was_not_published_goes_with_the_next_push(
    adapter: Path, revised: Path, repo: Path
) -> None:
    first = client.push(adapter, REF).commit
    begun = client.push(revised, REF).commit
    (repo / "refs" / "main").write_text(first)
    (repo / "pending").write_text(begun)
    (repo / "commits" / f".{begun}.json.0123abcd.tmp").write_text("half")
    again = client.push(revised, REF).commit
    assert commits(repo) == {first, again}
    assert not (repo / "pending").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_a_published_commit_stays(adapter: Path, revised: Path, repo: Path, which: int) -> None:
    published = [client.push(folder, REF).commit for folder in (adapter, revised)]
    (repo / "pending").write_text(published[which])
    assert client.push(revised, REF).commit == published[1]
    assert commits(repo) == set(published)
    assert not (repo / "pending").exists()


def test_a_pending_push_that_makes_no_sense_stops_nobody(
    adapter: Path, revised: Path, repo: Path
) -> None:
    client.push(adapter, REF)
    (repo / "pending").write_text("../../refs/main")
    client.push(revised, REF)
    assert contents(client.pull(REF).folder) == contents(revised)


def test_a_folder_without_a_record_is_made_anew_and_not_kept(adapter: Path) -> None:
    client.push(adapter, REF)
    pulled = client.pull(REF)
    record_path(pulled.folder).unlink()
    assert contents(client.pull(REF).folder) == contents(adapter)
    assert not (cache_dir() / "damaged").exists()
    assert list((cache_dir() / "tmp").iterdir()) == []
