"""A registry in a folder: revisions, conflicts, removal and damage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.domain.stores import Store
from adapterhub.errors import (
    ConflictError,
    FormatError,
    IntegrityError,
    NotFoundError,
    UnknownRevisionError,
    UsageError,
)
from adapterhub.hub import client
from adapterhub.hub.home import registry_dir
from adapterhub.hub.stores.directory import DirectoryStore, adapterhub_open_store
from tests.adapter_files import write_lora
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore((tmp_path / "team registry").as_uri())


@pytest.fixture
def revised(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "revised", lora_alpha=8)


def publish(store: Store, folder: Path, ref: Ref = REF, parent: str | None = None) -> str:
    return store.publish(ref, folder, message="m", parent=parent).commit


def objects(store: DirectoryStore) -> set[str]:
    folder = Path(store.uri.removeprefix("file://").replace("%20", " ")) / "objects"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_only_file_addresses_are_its_business(tmp_path: Path) -> None:
    assert isinstance(adapterhub_open_store(tmp_path.as_uri()), DirectoryStore)
    assert adapterhub_open_store("https://huggingface.co") is None


def test_opening_one_creates_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    assert store.names() == []
    assert store.search("") == []
    with pytest.raises(NotFoundError):
        store.resolve(REF)
    assert not (tmp_path / "team registry").exists()


@pytest.mark.parametrize("write", ["{}", "{}@main", "{}@v1", "{}@COMMIT", "{}@SHORT"])
def test_a_revision_is_a_branch_a_tag_a_commit_or_its_start(
    store: DirectoryStore, adapter: Path, write: str
) -> None:
    commit = publish(store, adapter)
    store.tag(REF, "v1")
    text = write.format(REF.id).replace("COMMIT", commit).replace("SHORT", commit[:7])
    snapshot = store.resolve(parse_ref(text))
    assert snapshot.commit == commit
    assert len(commit) == 40


@pytest.mark.parametrize("revision", ["v2", "abcdef0", "abc", "../../x", "refs/heads/main"])
def test_an_unknown_revision_is_said_to_be_one(
    store: DirectoryStore, adapter: Path, revision: str
) -> None:
    publish(store, adapter)
    with pytest.raises(UnknownRevisionError):
        store.resolve(REF.at(revision))


def test_history_stays(store: DirectoryStore, adapter: Path, revised: Path) -> None:
    first = publish(store, adapter)
    second = publish(store, revised)
    assert store.resolve(REF).parent == first
    assert store.resolve(REF.at(first)).commit == first != second


def test_a_tag_never_moves(store: DirectoryStore, adapter: Path, revised: Path) -> None:
    publish(store, adapter)
    store.tag(REF, "v1")
    store.tag(REF, "v1")
    publish(store, revised)
    with pytest.raises(UsageError):
        store.tag(REF, "v1")
    with pytest.raises(UsageError):
        store.tag(REF, "../../v2")


@pytest.mark.parametrize("name", ["a" * 40, "abcdef0"])
def test_no_tag_reads_like_a_commit(store: DirectoryStore, adapter: Path, name: str) -> None:
    publish(store, adapter)
    with pytest.raises(UsageError):
        store.tag(REF, name)


def test_a_full_commit_is_itself_whatever_a_tag_is_called(
    store: DirectoryStore, adapter: Path, revised: Path, tmp_path: Path
) -> None:
    first, second = publish(store, adapter), publish(store, revised)
    tags = tmp_path / "team registry/repos" / REF.id / "tags"
    tags.mkdir()
    (tags / first).write_text(second)
    assert store.resolve(REF.at(first)).commit == first


def test_a_folder_has_no_private_adapters(store: DirectoryStore, adapter: Path) -> None:
    with pytest.raises(UsageError, match="no private adapters"):
        store.publish(REF, adapter, message="m", parent=None, private=True)
    assert store.names() == []


def test_the_same_content_is_the_same_revision(store: DirectoryStore, adapter: Path) -> None:
    assert publish(store, adapter) == publish(store, adapter)


@pytest.mark.parametrize("locks", ["fcntl", "none"])
def test_of_two_pushes_on_one_parent_one_conflicts(
    store: DirectoryStore, adapter: Path, revised: Path, tmp_path: Path, locks: str
) -> None:
    parent = publish(store, adapter)
    third = write_lora(tmp_path / "third", lora_alpha=16)
    code = """
import sys
from pathlib import Path
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import ConflictError
from adapterhub.hub import locks
from adapterhub.hub.stores.directory import DirectoryStore
uri, folder, parent, kind = sys.argv[1:]
if kind == "none":
    locks.fcntl = None
try:
    ref = parse_ref("user/en2ko-lora")
    DirectoryStore(uri).publish(ref, Path(folder), message="m", parent=parent)
except ConflictError as error:
    print("conflict", error.hint)
else:
    print("published")
"""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, store.uri, str(folder), parent, locks],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for folder in (revised, third)
    ]
    said = sorted(racer.communicate()[0].split()[0] for racer in racers)
    assert said == ["conflict", "published"]
    assert store.resolve(REF).parent == parent
    assert not list((tmp_path / "team registry/locks").iterdir())


def test_a_parent_nobody_published_conflicts(store: DirectoryStore, adapter: Path) -> None:
    with pytest.raises(ConflictError, match="at no revision"):
        publish(store, adapter, parent="0" * 40)
    assert store.names() == []


def test_a_name_that_comes_back_is_another_repository(store: DirectoryStore, adapter: Path) -> None:
    publish(store, adapter)
    before = store.resolve(REF)
    store.remove(REF)
    with pytest.raises(NotFoundError, match=r"it was removed on \d{4}-"):
        store.resolve(REF)
    publish(store, adapter)
    after = store.resolve(REF)
    assert after.repo_uuid != before.repo_uuid
    assert after.commit != before.commit


def test_removing_keeps_what_others_share(
    store: DirectoryStore, adapter: Path, revised: Path
) -> None:
    other = parse_ref("acme/other")
    publish(store, adapter)
    publish(store, revised, other)
    shared = {entry.sha256 for entry in store.resolve(other).files}
    store.remove(REF)
    assert objects(store) == shared
    assert store.names() == ["acme/other"]


def test_search_leaves_out_what_is_broken(
    store: DirectoryStore, adapter: Path, tmp_path: Path
) -> None:
    publish(store, adapter)
    broken = parse_ref("user/broken-lora")
    commit = publish(store, adapter, broken)
    path = tmp_path / "team registry/repos/user/broken-lora/commits" / f"{commit}.json"
    path.write_text(path.read_text().replace('"m"', '"changed"'))
    assert [found.id for found in store.search("lora")] == ["user/en2ko-lora"]
    with pytest.raises(IntegrityError, match="has been changed"):
        store.resolve(broken)


def test_search_reads_tags_from_the_card(store: DirectoryStore, adapter: Path) -> None:
    (adapter / "README.md").write_text("---\ntags: [legal, korean]\n---\n# card\n")
    publish(store, adapter)
    (found,) = store.search("KOREAN lora")
    assert found.tags == ("legal", "korean")


def test_a_wrong_byte_at_rest_is_found_by_the_pull(adapter: Path) -> None:
    client.push(adapter, REF)
    for path in (registry_dir() / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError, match="sha256"):
        client.pull(REF)
    client.push(adapter, REF)  # publishing again heals the objects
    assert contents(client.pull(REF).folder) == contents(adapter)


def test_a_lost_object_is_said_to_be_lost(adapter: Path) -> None:
    client.push(adapter, REF)
    for path in (registry_dir() / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(IntegrityError, match="lost adapter_"):
        client.pull(REF)


def test_a_link_is_not_published(store: DirectoryStore, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (adapter / "notes.md").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="is a link"):
        publish(store, adapter)
