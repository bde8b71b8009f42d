"""A hub that sends wrong, short or no bytes: found, repaired where possible, and said plainly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterhub.domain.refs import parse_ref
from adapterhub.errors import (
    ConflictError,
    DeniedError,
    FormatError,
    IntegrityError,
    NotFoundError,
    RemoteError,
    UnknownRevisionError,
    UnreachableError,
    UsageError,
)
from adapterhub.hub import cache, client
from adapterhub.hub.objects import object_path, parts_dir
from adapterhub.hub.stores.huggingface import HuggingFaceStore
from tests.hub_server import Fault, Hub, running_hub
from tests.unit.hub.conftest import contents

REF = parse_ref("user/en2ko-lora")
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.fixture
def published(big_adapter: Path, hub: Hub) -> Path:
    client.push(big_adapter, REF, to="hub")
    return big_adapter


@pytest.mark.parametrize("path", [WEIGHTS, CONFIG])
def test_a_wrong_byte_in_transit_is_found(published: Path, hub: Hub, path: str) -> None:
    hub.faults.append(Fault(kind="wrong_byte", path=path))
    with pytest.raises(IntegrityError, match=f"sent {path} with .* instead of"):
        client.pull(REF)
    assert client.installed() == []
    assert not list(parts_dir().iterdir())
    hub.faults.clear()
    assert contents(client.pull(REF).folder) == contents(published)


def test_a_byte_that_is_wrong_once_is_fetched_anew(published: Path, hub: Hub) -> None:
    hub.faults.append(Fault(kind="wrong_byte", path=WEIGHTS, times=1))
    notes: list[str] = []
    assert contents(client.pull(REF, note=notes.append).folder) == contents(published)
    assert "arrived damaged" in notes[0]


@pytest.mark.parametrize(
    ("kind", "says"), [("short", "bytes instead of"), ("html", "it is a web page")]
)
def test_other_things_than_weights_are_refused(
    published: Path, hub: Hub, kind: str, says: str
) -> None:
    hub.faults.append(Fault(kind=kind, path=WEIGHTS))
    with pytest.raises(IntegrityError, match=says):
        client.pull(REF)


def test_a_dropped_connection_goes_on_where_it_was(published: Path, hub: Hub) -> None:
    hub.faults.append(Fault(kind="drop", path=WEIGHTS, value=1_500_000, times=1))
    assert contents(client.pull(REF).folder) == contents(published)
    first, second = hub.downloads(WEIGHTS)
    assert "Range" not in first.headers
    assert int(second.headers["Range"].removeprefix("bytes=").rstrip("-")) >= 1_000_000


def test_a_hub_that_ignores_ranges_still_gives_the_right_bytes(published: Path, hub: Hub) -> None:
    hub.faults += [
        Fault(kind="drop", path=WEIGHTS, value=1_500_000, times=1),
        Fault(kind="ignore_range", path=WEIGHTS),
    ]
    assert contents(client.pull(REF).folder) == contents(published)


def test_a_damaged_part_is_thrown_away_and_fetched_from_zero(published: Path, hub: Hub) -> None:
    (entry,) = [e for e in client.show(REF).snapshot.files if e.path == WEIGHTS]
    parts_dir().mkdir(parents=True, exist_ok=True)
    (parts_dir() / f"{entry.sha256}.part").write_bytes(b"x" * 1000)
    assert contents(client.pull(REF).folder) == contents(published)
    assert ["Range" in r.headers for r in hub.downloads(WEIGHTS)] == [True, False]


def test_a_wrong_byte_at_rest_is_found_and_repaired(published: Path, hub: Hub) -> None:
    pulled = client.pull(REF)
    weights = pulled.folder / WEIGHTS
    weights.chmod(0o644)
    damaged = weights.read_bytes()[:-1] + b"\x01"
    weights.write_bytes(damaged)
    assert "sha256" in (cache.damage(client.installed()[0]) or "")
    notes: list[str] = []
    again = client.pull(REF, note=notes.append)
    assert contents(again.folder) == contents(published)
    assert WEIGHTS in notes[0]
    assert "made anew" in notes[0]


@pytest.mark.parametrize("harm", ["truncate", "delete", "add", "link"])
def test_every_kind_of_damage_is_noticed(published: Path, tmp_path: Path, harm: str) -> None:
    pulled = client.pull(REF)
    target = pulled.folder / CONFIG
    if harm == "add":
        (pulled.folder / "extra.json").write_text("{}")
    else:
        text = target.read_bytes()
        target.unlink()
    if harm == "truncate":
        target.write_bytes(text[:10])
    if harm == "link":
        (tmp_path / "elsewhere").write_bytes(text)
        target.symlink_to(tmp_path / "elsewhere")
    again = client.pull(REF)
    assert not again.from_cache
    assert contents(again.folder) == contents(published)
    assert not target.is_symlink()


def test_a_damaged_object_is_not_used(published: Path, hub: Hub) -> None:
    pulled = client.pull(REF)
    (entry,) = [e for e in client.installed()[0].files if e.path == WEIGHTS]
    client.remove(REF)
    path = object_path(entry.sha256 or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * entry.size)
    assert contents(client.pull(REF).folder) == contents(published)
    assert pulled.folder.exists()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, DeniedError),
        (403, DeniedError),
        (404, NotFoundError),
        (429, UnreachableError),
        (500, UnreachableError),
        (503, UnreachableError),
        (418, RemoteError),
    ],
)
@pytest.mark.parametrize("path", ["/api/", "/resolve/"])
def test_a_refusal_is_one_line_and_one_next_move(
    published: Path, hub: Hub, status: int, error: type[RemoteError], path: str
) -> None:
    store = HuggingFaceStore(hub.url, backoff=(0.01, 0.01))
    snapshot = store.resolve(REF)
    hub.faults.append(Fault(kind="status", path=path, value=status))
    with pytest.raises(error) as caught:
        b"".join(store.read(store.resolve(REF), WEIGHTS))
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert hub.token not in f"{caught.value.message} {caught.value.hint}"
    hub.faults.clear()
    hub.faults.append(Fault(kind="status", path=path, value=503, times=2))
    assert len(b"".join(store.read(snapshot, WEIGHTS))) == (published / WEIGHTS).stat().st_size


def test_a_web_page_instead_of_an_api_is_not_a_traceback(published: Path, hub: Hub) -> None:
    hub.faults.append(Fault(kind="html"))
    with pytest.raises(RemoteError, match="did not answer like a hub"):
        client.pull(REF)


def test_a_card_the_hub_refuses_is_said_to_be_the_reason(adapter: Path, hub: Hub) -> None:
    (adapter / "README.md").write_text("# card\n")
    refusal = Fault(kind="status", path="validate-yaml", value=400, methods=("POST",))
    hub.faults.append(refusal)
    with pytest.raises(RemoteError, match=r"Invalid metadata in README\.md"):
        client.push(adapter, REF, to="hub")


def test_gated_and_missing_revision_are_told_apart(published: Path, hub: Hub) -> None:
    with pytest.raises(UnknownRevisionError, match="no such revision"):
        client.pull(REF.on("hub").at("v9"))
    hub.repos[REF.id].gated = True
    hub.token = "hf_anothertoken5678"
    with pytest.raises(DeniedError, match="is gated"):
        client.pull(REF)


def test_a_private_adapter_looks_missing_without_the_right(
    adapter: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.push(adapter, REF, to="hub", private=True)
    assert client.pull(REF).ref.id == REF.id
    client.remove(REF)
    monkeypatch.setenv("ADAPTERHUB_TOKEN_HUB", "hf_wrongtoken999")
    with pytest.raises((NotFoundError, DeniedError)):
        client.pull(REF.on("hub"))
    with pytest.raises(DeniedError, match="does not let you"):
        client.push(adapter, parse_ref("user/other"), to="hub")


@pytest.fixture
def elsewhere() -> Iterator[Hub]:
    with running_hub() as other:
        yield other


def test_a_token_does_not_follow_a_redirect_to_another_origin(
    published: Path, hub: Hub, elsewhere: Hub
) -> None:
    elsewhere.repos = hub.repos
    hub.faults.append(Fault(kind="redirect", path=WEIGHTS, where=elsewhere.url))
    assert contents(client.pull(REF).folder) == contents(published)
    assert "Authorization" in hub.downloads(WEIGHTS)[0].headers
    assert "Authorization" not in elsewhere.downloads(WEIGHTS)[0].headers


def test_of_two_pushes_on_one_parent_one_conflicts(
    adapter: Path, published: Path, hub: Hub
) -> None:
    parent = hub.repos[REF.id].head
    client.push(adapter, REF, to="hub", parent=parent)
    after = hub.repos[REF.id].head
    with pytest.raises(ConflictError):
        client.push(published, REF, to="hub", parent=parent)
    assert hub.repos[REF.id].head == after


def test_the_same_content_makes_no_new_revision(published: Path, hub: Hub) -> None:
    commits = len(hub.repos[REF.id].commits)
    client.push(published, REF, to="hub")
    assert len(hub.repos[REF.id].commits) == commits


def test_a_push_takes_away_what_the_folder_lacks_but_not_pictures(
    adapter: Path, published: Path, hub: Hub
) -> None:
    files = dict(hub.repos[REF.id].commits[-1][1])
    hub.put(REF.id, {**files, "old.json": b"{}", "plot.png": b"png"})
    client.push(adapter, REF, to="hub")
    assert set(hub.repos[REF.id].commits[-1][1]) == {CONFIG, WEIGHTS, ".gitattributes", "plot.png"}


def test_hostile_names_are_refused_before_the_first_byte(hub: Hub, home: Path) -> None:
    hub.put(REF.id, {CONFIG: b"{}", WEIGHTS: b"x", "../../evil.json": b"{}"})
    with pytest.raises(FormatError, match=r"leaves its folder"):
        client.pull(REF)
    assert not hub.downloads()
    assert not (home / "cache").exists()


def test_pickles_are_neither_fetched_nor_enough(hub: Hub) -> None:
    hub.put(REF.id, {CONFIG: b"{}", "adapter_model.bin": b"pickle"})
    with pytest.raises(FormatError, match="pickle"):
        client.pull(REF)
    hub.put(REF.id, {CONFIG: b"{}", WEIGHTS: b"x", "training_args.bin": b"pickle"})
    assert set(contents(client.pull(REF).folder)) == {CONFIG, WEIGHTS}
    assert not hub.downloads(".bin")


def test_a_name_that_was_given_to_another_repository_is_fetched_anew(
    adapter: Path, hub: Hub
) -> None:
    client.push(adapter, REF, to="hub")
    first = client.pull(REF)
    hub.repos[REF.id].uuid = "another"
    notes: list[str] = []
    second = client.pull(REF, note=notes.append)
    assert second.snapshot.repo_uuid != first.snapshot.repo_uuid
    assert "removed" in notes[0]


def test_a_bad_address_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        HuggingFaceStore("http://[bad")
