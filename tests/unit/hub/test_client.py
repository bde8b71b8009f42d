"""Pull, push, search, show and remove, through both kinds of store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import (
    DeniedError,
    IntegrityError,
    NotFoundError,
    RemovedError,
    UnknownRevisionError,
    UnreachableError,
    UsageError,
    VerificationError,
)
from adapterhub.formats.card import render_card
from adapterhub.hub import client
from adapterhub.hub.folder import read_folder
from adapterhub.hub.remotes import add_remote
from adapterhub.hub.verify import verify_folder
from tests.adapter_files import f32, lora_tensors, write_lora
from tests.hub_memory import Repo
from tests.hub_server import Fault, Hub
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")


@pytest.mark.parametrize("to", ["local", "hub"])
def test_what_was_pushed_is_what_is_pulled(adapter: Path, hub: Hub, to: str) -> None:
    pushed = client.push(adapter, REF, to=to, message="first")
    pulled = client.pull(REF.on(to))
    assert contents(pulled.folder) == contents(adapter)
    assert pulled.ref == REF.on(to).at(pushed.commit) == pushed.ref
    assert pulled.downloaded_bytes == sum(map(len, contents(adapter).values()))
    assert not pulled.from_cache


def test_a_second_pull_downloads_nothing(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    client.pull(REF)
    before = len(hub.downloads())
    again = client.pull(REF)
    assert (again.from_cache, again.downloaded_bytes) == (True, 0)
    assert len(hub.downloads()) == before


def test_pulled_files_are_read_only(adapter: Path) -> None:
    client.push(adapter, REF)
    folder = client.pull(REF).folder
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}


def test_local_is_asked_before_the_hub(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    assert client.pull(REF).remote.name == "hub"
    client.push(adapter, REF, to="local")
    assert client.pull(REF).remote.name == "local"


def test_a_revision_that_local_lacks_is_not_taken_from_a_namesake(adapter: Path, hub: Hub) -> None:
    commit = client.push(adapter, REF, to="hub").commit
    client.push(adapter, REF, to="local")
    with pytest.raises(UnknownRevisionError, match="local knows that name") as caught:
        client.pull(REF.at(commit))
    assert f"hub:{REF.id}@{commit}" in (caught.value.hint or "")


def test_a_name_that_local_removed_is_not_taken_from_a_namesake(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    client.push(adapter, REF, to="local")
    client.unpublish(REF)
    with pytest.raises(RemovedError, match=r"local knows that name.* it was removed on") as caught:
        client.pull(REF)
    assert f"hub:{REF.id}" in (caught.value.hint or "")


@pytest.mark.parametrize("ask", [client.pull, client.show])
def test_another_commit_than_the_pinned_one_is_not_believed(
    adapter: Path, hub: Hub, ask: Callable[[Ref], object]
) -> None:
    commit = client.push(adapter, REF, to="hub").commit
    pinned = "1" * 40
    repo = hub.repos[REF.id]
    hub.repos[REF.id] = Lying(repo.uuid, repo.commits)
    with pytest.raises(IntegrityError, match=f"{commit}.*{pinned}"):
        ask(REF.on("hub").at(pinned))
    assert client.installed() == []


class Lying(Repo):
    """Answers every revision with its newest."""

    def files(self, revision: str) -> tuple[str, dict[str, bytes]]:
        return self.commits[-1]


def test_unpublishing_never_falls_through_to_a_hub(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    with pytest.raises(NotFoundError, match="local") as caught:
        client.unpublish(REF)
    assert caught.value.hint == f"for another remote, name it: hub:{REF.id}"
    assert REF.id in hub.repos
    assert client.unpublish(REF.on("hub")).name == "hub"
    assert REF.id not in hub.repos


def test_a_push_that_cannot_be_private_is_refused(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    commits = len(hub.repos[REF.id].commits)
    (adapter / "notes.md").write_text("# notes")
    with pytest.raises(UsageError, match="is public on"):
        client.push(adapter, REF, to="hub", private=True)
    assert len(hub.repos[REF.id].commits) == commits
    hub.repos[REF.id].private = True
    client.push(adapter, REF, to="hub", private=True)


def test_an_unknown_name_brings_the_nearest_one(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    with pytest.raises(NotFoundError, match=r"local .*hub") as caught:
        client.pull(parse_ref("user/en2k0-lora"))
    assert caught.value.hint == "did you mean user/en2ko-lora?"


def test_an_unreachable_hub_is_told_with_what_local_lacks(adapter: Path) -> None:
    with pytest.raises(
        UnreachableError, match=r"local has no user/en2ko-lora, and http://127.0.0.1:9"
    ):
        client.pull(REF)


def test_an_exact_commit_that_is_here_needs_no_hub(adapter: Path, hub: Hub) -> None:
    pushed = client.push(adapter, REF, to="hub")
    client.pull(REF)
    remote = add_remote("team", "http://127.0.0.1:9").name
    before = len(hub.requests)
    assert client.pull(REF.at(pushed.commit)).from_cache
    assert len(hub.requests) == before
    with pytest.raises(UnreachableError):
        client.pull(REF.on(remote).at(pushed.commit))


def test_offline_the_commit_that_is_here_is_offered(adapter: Path, hub: Hub) -> None:
    pushed = client.push(adapter, REF, to="hub")
    client.pull(REF)
    hub.faults.append(Fault(kind="status", value=503, path="/api/"))
    with pytest.raises(UnreachableError) as caught:
        client.pull(REF)
    assert caught.value.hint is not None
    assert pushed.commit in caught.value.hint


def test_a_revision_nobody_has(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF)
    with pytest.raises(UnknownRevisionError, match="no revision v9"):
        client.pull(REF.at("v9"))


def test_a_push_refuses_what_verify_finds_unless_allowed(tmp_path: Path) -> None:
    zero = {
        name: f32(shape, 0.0) if "lora_B" in name else (dtype, shape, data)
        for name, (dtype, shape, data) in lora_tensors().items()
    }
    folder = write_lora(tmp_path / "zero", tensors=zero)
    with pytest.raises(VerificationError) as caught:
        client.push(folder, REF)
    assert client.installed() == []
    assert "zero" in caught.value.message
    codes = frozenset(problem.code for problem in verify_folder(folder).problems)
    before = contents(folder)
    assert client.push(folder, REF, allow=codes | {"not-needed"}).commit
    assert contents(folder) == before
    published = read_folder(client.pull(REF).folder).manifest
    assert published.allowed == tuple(sorted(codes))
    assert published.inferred


def test_only_files_of_an_adapter_are_sent(adapter: Path) -> None:
    (adapter / ".env").write_text("SECRET=1")
    (adapter / "optimizer.pt").write_bytes(b"pickle")
    (adapter / "notes.md").write_text("# notes")
    pushed = client.push(adapter, REF)
    assert "notes.md" in {entry.path for entry in pushed.files}
    assert pushed.skipped == (".env", "optimizer.pt")


@pytest.mark.parametrize("ref", ["user/en2ko-lora@v1", "team:user/en2ko-lora"])
def test_a_push_needs_a_remote_and_makes_its_own_revision(adapter: Path, ref: str) -> None:
    with pytest.raises((UsageError, NotFoundError)):
        client.push(adapter, parse_ref(ref))


@pytest.mark.parametrize("to", ["local", "hub"])
def test_search_finds_by_word_and_by_base(adapter: Path, hub: Hub, to: str) -> None:
    client.push(adapter, REF, to=to)
    (found,) = client.search("en2ko", remote=to)
    assert (found.summary.id, found.summary.method) == ("user/en2ko-lora", "lora")
    assert found.summary.base == "acme/tiny"
    assert client.search("", remote=to, base="acme/tiny")
    assert not client.search("", remote=to, base="acme/other")
    assert not client.search("nothing-like-it", remote=to)


def test_search_says_which_remote_was_silent(adapter: Path) -> None:
    client.push(adapter, REF)
    notes: list[str] = []
    assert [item.remote.name for item in client.search("en2ko", note=notes.append)] == ["local"]
    assert "http://127.0.0.1:9 cannot be reached" in notes[0]


def test_search_goes_on_past_a_remote_that_refuses(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF)
    hub.faults.append(Fault(kind="status", path="/api/models", value=401))
    notes: list[str] = []
    assert [item.remote.name for item in client.search("en2ko", note=notes.append)] == ["local"]
    assert "asks for a valid token" in notes[0]
    with pytest.raises(DeniedError):
        client.search("en2ko", remote="hub")


@pytest.mark.parametrize("to", ["local", "hub"])
def test_show_brings_the_small_files_only(adapter: Path, hub: Hub, to: str) -> None:
    pushed = client.push(adapter, REF, to=to)
    shown = client.show(REF.on(to))
    assert shown.documents["adapter_config.json"] == (adapter / "adapter_config.json").read_bytes()
    assert shown.snapshot.commit == pushed.commit
    assert shown.installed is None
    assert not hub.downloads("safetensors")


def test_remove_deletes_here_and_unpublish_there(adapter: Path) -> None:
    client.push(adapter, REF)
    folder = client.pull(REF).folder
    assert [item.folder for item in client.installed()] == [folder]
    assert client.remove(REF) == sum(map(len, contents(adapter).values()))
    assert client.installed() == []
    assert not folder.exists()
    assert client.unpublish(REF).name == "local"
    with pytest.raises((NotFoundError, UnreachableError), match="local"):
        client.pull(REF)


def test_the_card_of_what_is_published_says_how_to_pull_it(adapter: Path) -> None:
    manifest = Manifest(method="lora", config_version=1, base=BaseRecord(id="acme/tiny"))
    (adapter / "README.md").write_text(render_card(manifest, name="mine"))
    for ref in (REF, parse_ref("other/name")):
        client.push(adapter, ref)
        card = (client.pull(ref).folder / "README.md").read_text()
        assert f"$ adapterhub pull {ref.id}\n" in card
    assert "adapterhub pull mine" in (adapter / "README.md").read_text()
