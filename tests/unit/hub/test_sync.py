"""A lock brings back exactly the bytes that were locked, or says by name why it cannot."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapterhub.domain.base import BaseSpec
from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.lock import Lock, Wanted, WantedAdapters
from adapterhub.domain.manifest import COMPOSITION_FILE, WEIGHTS_FILE, BaseRecord
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import (
    FormatError,
    IntegrityError,
    MismatchError,
    NotFoundError,
    RemovedError,
    UnknownRevisionError,
    UsageError,
    VerificationError,
)
from adapterhub.formats.base_spec import decode_base
from adapterhub.formats.composition_file import encode_composition
from adapterhub.formats.lock_file import decode_lock, encode_lock
from adapterhub.hub import client, project
from adapterhub.hub.surroundings import check_bases, plugin_remarks
from adapterhub.hub.sync import sync, write_folders
from tests.adapter_files import f32, lora_tensors, write_lora
from tests.base_records import write_base_record
from tests.hub_server import Hub
from tests.unit.hub.conftest import contents

REF = parse_ref("acme/tiny-lora")


def no_base(name: str) -> BaseSpec:
    raise NotFoundError(f"no base is called {name!r}")


def lock_now(before: Lock | None = None, *, accept: tuple[str, ...] = (), **wanted: Wanted) -> Lock:
    asked = WantedAdapters(adapters=wanted or {"a": Wanted(ref=REF.id)})
    return project.lock_wanted(
        asked, before, fetch=client.pull, find_base=no_base, keep=False, accept=accept
    )


def forget(home: Path) -> None:
    """A fresh machine that still knows its remotes."""
    shutil.rmtree(home / "cache")


def flip(path: Path) -> None:
    """Change one byte, keeping the length; the file is read-only, as pulled ones are."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def first(lock: Lock, **changes: object) -> Lock:
    """The lock with another adapter repository in its first place."""
    item = lock.adapters[0]
    altered = replace(item, adapter=replace(item.adapter, **changes))  # type: ignore[arg-type]
    return replace(lock, adapters=(altered, *lock.adapters[1:]))


@pytest.mark.parametrize("to", ["local", "hub"])
def test_a_fresh_machine_gets_the_locked_bytes(
    adapter: Path, hub: Hub, home: Path, tmp_path: Path, to: str
) -> None:
    client.push(adapter, REF, to=to)
    lock = lock_now()
    client.push(write_lora(adapter, lora_alpha=8), REF, to=to)  # published later
    shutil.rmtree(adapter)
    forget(home)
    synced = sync(decode_lock(encode_lock(lock)), offline=False)
    assert synced[0].downloaded_bytes > 0
    folder = write_folders(synced, tmp_path / "out")["a"]
    assert contents(folder) == contents(write_lora(tmp_path / "same"))
    assert sync(lock, offline=True)[0].downloaded_bytes == 0


def test_the_same_remote_gives_the_same_lock(adapter: Path, hub: Hub, home: Path) -> None:
    client.push(adapter, REF, to="hub")
    one = encode_lock(lock_now())
    forget(home)
    assert encode_lock(lock_now()) == one


def test_offline_names_all_that_is_missing(adapter: Path, home: Path) -> None:
    client.push(adapter, REF)
    lock = lock_now(a=Wanted(ref=REF.id), b=Wanted(ref=REF.id, remote="local"))
    forget(home)
    with pytest.raises(NotFoundError, match=r"not in the cache: a \(acme/tiny-lora@.*, b \("):
        sync(lock, offline=True)


def test_a_changed_byte_in_the_cache_is_refused_offline_and_mended_online(adapter: Path) -> None:
    client.push(adapter, REF)
    lock = lock_now()
    folder = sync(lock, offline=True)[0].folder
    flip(folder / WEIGHTS_FILE)
    with pytest.raises(IntegrityError, match=r"^a: in the cache of .*model\.safetensors has sha"):
        sync(lock, offline=True)
    said: list[str] = []
    assert contents(sync(lock, offline=False, note=said.append)[0].folder) == contents(adapter)
    assert "was made anew" in said[0]


def test_a_commit_that_the_remote_lost_is_refused(adapter: Path, hub: Hub, home: Path) -> None:
    client.push(adapter, REF, to="hub")
    lock = lock_now()
    client.push(write_lora(adapter, lora_alpha=8), REF, to="hub")
    del hub.repos[REF.id].commits[-2]  # a force push
    forget(home)
    with pytest.raises(UnknownRevisionError, match="a: hub:acme/tiny-lora no longer has"):
        sync(lock, offline=False)
    with pytest.raises(IntegrityError, match="its history was rewritten"):
        lock_now(lock)
    assert lock_now(lock, accept=("a",)).adapters[0].adapter.commit == hub.repos[REF.id].head


def test_a_repository_that_was_made_anew_is_refused(adapter: Path, hub: Hub, home: Path) -> None:
    client.push(adapter, REF, to="hub")
    lock = lock_now()
    hub.repos[REF.id].uuid = "somebody-else"
    with pytest.raises(IntegrityError, match="removed and made anew since it was locked"):
        lock_now(replace(lock), a=Wanted(ref=REF.id, revision="main"))
    forget(home)
    with pytest.raises(IntegrityError, match="a: hub:acme/tiny-lora is not the repository"):
        sync(lock, offline=False)
    assert not list((home / "cache").rglob("*.safetensors"))


def test_a_removed_repository_is_named(adapter: Path, home: Path) -> None:
    client.push(adapter, REF)
    lock = lock_now()
    client.unpublish(REF)
    forget(home)
    with pytest.raises(RemovedError, match=r"^a: .*it was removed on"):
        sync(lock, offline=False)


def test_another_remote_that_answers_now_is_refused(adapter: Path, hub: Hub) -> None:
    client.push(adapter, REF, to="hub")
    lock = lock_now()
    client.push(adapter, REF, to="local")
    with pytest.raises(IntegrityError, match="locked on hub, and local answers now"):
        lock_now(lock)
    assert (
        lock_now(lock, a=Wanted(ref=REF.id, remote="local")).adapters[0].adapter.remote == "local"
    )


@pytest.mark.parametrize("offline", [True, False])
def test_another_commit_in_the_lock_brings_nothing(adapter: Path, offline: bool) -> None:
    client.push(adapter, REF)
    lock = lock_now()
    forged = first(lock, commit="0" * 40)
    with pytest.raises(NotFoundError, match=r"^(a|not in the cache: a)\b.*000000000000"):
        sync(forged, offline=offline)


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: replace(f, sha256="0" * 64), "is another file there"),
        (lambda f: replace(f, size=f.size + 1), "is another file there"),
        (lambda f: replace(f, path="zz.json"), "is not locked|is not there"),
    ],
)
def test_other_files_in_the_lock_are_refused(
    adapter: Path, home: Path, offline: bool, change: Callable[..., object], said: str
) -> None:
    client.push(adapter, REF)
    lock = lock_now()
    files = lock.adapters[0].adapter.files
    if not offline:
        forget(home)
    with pytest.raises(IntegrityError, match=rf"^a: adapters.lock is not what .*({said})"):
        sync(first(lock, files=(change(files[0]), *files[1:])), offline=offline)


def test_a_forged_lock_passes_nobody_s_bytes_off_as_another_s(
    adapter: Path, tmp_path: Path
) -> None:
    client.push(adapter, REF)
    evil = parse_ref("evil/tiny-lora")
    client.push(write_lora(tmp_path / "evil", lora_alpha=8), evil)
    lock = lock_now(a=Wanted(ref=evil.id))
    good = client.published(REF).snapshot
    forged = first(lock, ref=REF.id, commit=good.commit, repo_uuid=good.repo_uuid)
    with pytest.raises(NotFoundError, match="not in the cache"):
        sync(forged, offline=True)
    with pytest.raises(IntegrityError, match=r"adapter_config\.json is another file there"):
        sync(forged, offline=False)


def test_a_broken_adapter_is_not_locked_unless_that_is_wanted(tmp_path: Path, hub: Hub) -> None:
    zero = {name: f32(t[1], 0.0) if "lora_B" in name else t for name, t in lora_tensors().items()}
    hub.put(REF.id, contents(write_lora(tmp_path / "zero", tensors=zero)))
    with pytest.raises(VerificationError):
        lock_now()
    wanted = Wanted(ref=REF.id, allow=("no-effect",))
    assert lock_now(a=wanted).adapters[0].wanted == wanted


def test_the_folder_written_is_refused_when_it_is_something_else(
    adapter: Path, tmp_path: Path
) -> None:
    client.push(adapter, REF)
    synced = sync(lock_now(), offline=True)
    folder = write_folders(synced, tmp_path / "out")["a"]
    before = (folder / WEIGHTS_FILE).stat().st_ino
    write_folders(synced, tmp_path / "out")
    assert (folder / WEIGHTS_FILE).stat().st_ino == before  # what is right is left alone
    flip(folder / WEIGHTS_FILE)
    with pytest.raises(UsageError, match=r"is not what adapters\.lock holds: .*has sha256"):
        write_folders(synced, tmp_path / "out")
    write_folders(synced, tmp_path / "out", overwrite=True)
    assert contents(folder) == contents(adapter)


def test_a_link_in_the_place_of_a_folder_is_not_followed(adapter: Path, tmp_path: Path) -> None:
    client.push(adapter, REF)
    synced = sync(lock_now(), offline=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="is a link"):
        write_folders(synced, tmp_path / "out", overwrite=True)
    assert not list(elsewhere.iterdir())


# --- compositions ---------------------------------------------------------------------------------


def compose(tmp_path: Path, *, commit: str | None, sha256: str) -> Path:
    folder = tmp_path / "both"
    folder.mkdir()
    terms = (PinnedTerm(ref=REF.id, weight=1.0, sha256=sha256, commit=commit),)
    pinned = PinnedComposition(base=BaseRecord(id="acme/tiny"), terms=terms)
    (folder / COMPOSITION_FILE).write_bytes(encode_composition(pinned))
    return folder


def test_the_members_of_a_composition_are_locked_with_it(
    adapter: Path, home: Path, tmp_path: Path
) -> None:
    commit = client.push(adapter, REF).commit
    sha256 = hashlib.sha256((adapter / WEIGHTS_FILE).read_bytes()).hexdigest()
    client.push(compose(tmp_path, commit=commit, sha256=sha256), parse_ref("acme/both"))
    lock = lock_now(both=Wanted(ref="acme/both"))
    locked = lock.adapters[0]
    assert [(m.ref, m.commit) for m in locked.members] == [(REF.id, commit)]
    assert [plugin.brings for plugin in locked.plugins] == ["linear", "lora"]
    forget(home)
    sync(lock, offline=False)
    assert client.pull(REF.on("local").at(commit)).from_cache


def test_a_member_that_nothing_pins_is_refused(adapter: Path, tmp_path: Path, hub: Hub) -> None:
    hub.put("acme/both", contents(compose(tmp_path, commit=None, sha256="a" * 64)))
    with pytest.raises(FormatError, match="its part acme/tiny-lora is a folder"):
        lock_now(both=Wanted(ref="acme/both"))


def test_a_member_of_other_bytes_is_refused(adapter: Path, tmp_path: Path, hub: Hub) -> None:
    commit = client.push(adapter, REF, to="hub").commit
    hub.put("acme/both", contents(compose(tmp_path, commit=commit, sha256="a" * 64)))
    with pytest.raises(IntegrityError, match="not the adapter that its composition pins"):
        lock_now(both=Wanted(ref="acme/both"))


# --- bases and plugins ----------------------------------------------------------------------------


@pytest.fixture
def base(home: Path) -> BaseSpec:
    write_base_record(home, "tiny")
    return decode_base((home / "bases" / "tiny" / "base.json").read_bytes(), name="tiny")


def lock_on(base: BaseSpec) -> Lock:
    wanted = WantedAdapters(adapters={"a": Wanted(ref=REF.id, base=base.name)})
    return project.lock_wanted(
        wanted, None, fetch=client.pull, find_base=lambda name: base, keep=False
    )


def test_the_base_is_locked_to_its_digests(adapter: Path, base: BaseSpec) -> None:
    client.push(adapter, REF)
    locked = lock_on(base).adapters[0].base
    assert (locked.revision, locked.scheme) == (base.revision, base.scheme)
    assert locked.fingerprint == base.fingerprint
    assert check_bases(lock_on(base), [base]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"content": "9" * 64}, "its weights changed (content 999999999999, locked 333333333333)"),
        ({"tokenizer": "9" * 64}, "its tokenizer changed"),
        ({"chat_template": "9" * 64}, "its chat template changed"),
    ],
)
def test_a_base_that_changed_is_refused(
    adapter: Path, base: BaseSpec, change: dict[str, str], said: str
) -> None:
    client.push(adapter, REF)
    other = replace(base, fingerprint=replace(base.fingerprint, **change))
    with pytest.raises(MismatchError) as caught:
        check_bases(lock_on(base), [other])
    assert "a: the base tiny is not the one that was locked" in caught.value.message
    assert said in caught.value.message


def test_another_quantization_is_another_base(adapter: Path, base: BaseSpec) -> None:
    client.push(adapter, REF)
    assert base.scheme.block_size is not None
    other = replace(base, scheme=replace(base.scheme, double_quant=False))
    with pytest.raises(MismatchError, match=r"nf4 \(block 64\), and nf4 \(block 64, double"):
        check_bases(lock_on(base), [other])


def test_an_adapter_for_another_base_is_not_locked(adapter: Path, base: BaseSpec) -> None:
    client.push(adapter, REF)
    with pytest.raises(MismatchError, match="a was made for acme/tiny, but tiny is"):
        lock_on(replace(base, id="acme/other", source="x/y", name="tiny"))


def test_a_base_that_is_not_here_is_said_to_be(adapter: Path, base: BaseSpec) -> None:
    client.push(adapter, REF)
    assert check_bases(lock_on(base), []) == [
        "a: its base tiny is not on this machine: adapterhub base add tiny acme/tiny"
    ]


def test_the_plugins_are_compared_with_those_here(adapter: Path) -> None:
    client.push(adapter, REF)
    lock = lock_now()
    assert plugin_remarks(lock) == []
    item = lock.adapters[0]
    other = replace(item.plugins[0], version="0.0.1")
    gone = replace(item.plugins[0], brings="vera", distribution="adapterhub-vera")
    found = plugin_remarks(Lock(adapters=(replace(item, plugins=(other, gone)),)))
    assert found[0].startswith("a was locked with adapterhub==0.0.1; here is adapterhub==")
    assert found[1] == f"a needs vera: pip install adapterhub-vera=={gone.version}"
