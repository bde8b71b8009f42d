"""The promises a store makes, as tests that a plugin inherits.

    class TestBucket(StoreConformance):
        @pytest.fixture
        def store(self): ...

Every test is given an empty store by the fixture `store`, which a subclass has to bring.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import ClassVar

import pytest

from adapterhub.domain.manifest import CONFIG_FILE, WEIGHTS_FILE
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.domain.stores import Snapshot, Store
from adapterhub.errors import (
    AdapterhubError,
    ConflictError,
    NotFoundError,
    RemovedError,
    UnknownRevisionError,
)

REF = parse_ref("acme/tiny-lora")


class StoreConformance:
    """`searches`: whether what was published is found at once. `tombstones`: whether a name that
    was removed is known to have been taken."""

    searches: ClassVar[bool] = True
    tombstones: ClassVar[bool] = True

    @pytest.fixture
    def store(self) -> Store:
        pytest.fail("bring a fixture `store` that gives an empty store")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_adapter(tmp_path / "adapter")

    @pytest.fixture
    def revised(self, tmp_path: Path) -> Path:
        return write_adapter(tmp_path / "revised", alpha=8)

    def test_an_empty_store_has_nothing(self, store: Store) -> None:
        assert store.names() == []
        with pytest.raises(NotFoundError):
            store.resolve(REF)

    def test_what_was_published_is_read_back(self, store: Store, folder: Path) -> None:
        made = publish(store, folder)
        found = store.resolve(REF)
        assert found.commit == made.commit
        assert _contents(store, found) >= _files(folder).items()

    def test_files_are_described_as_they_are(self, store: Store, folder: Path) -> None:
        publish(store, folder)
        described = {entry.path: entry for entry in store.resolve(REF).files}
        for name, data in _files(folder).items():
            entry = described[name]
            assert entry.size == len(data)
            assert entry.sha256 is not None or entry.git_blob is not None
            assert entry.sha256 in (None, hashlib.sha256(data).hexdigest())
            assert entry.git_blob in (
                None,
                hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
            )

    @pytest.mark.parametrize("offset", [1, 100])
    def test_reading_goes_on_from_an_offset(self, store: Store, folder: Path, offset: int) -> None:
        publish(store, folder)
        whole = (folder / WEIGHTS_FILE).read_bytes()
        rest = b"".join(store.read(store.resolve(REF), WEIGHTS_FILE, offset=offset))
        assert rest == whole[offset:]

    @pytest.mark.parametrize(("offset", "length"), [(0, 8), (100, 1), (1, 1 << 30)])
    def test_reading_stops_after_a_length(
        self, store: Store, folder: Path, offset: int, length: int
    ) -> None:
        publish(store, folder)
        whole = (folder / WEIGHTS_FILE).read_bytes()
        found = store.read(store.resolve(REF), WEIGHTS_FILE, offset=offset, length=length)
        assert b"".join(found) == whole[offset : offset + length]

    def test_a_file_that_is_not_there_is_an_error_of_ours(self, store: Store, folder: Path) -> None:
        publish(store, folder)
        with pytest.raises(AdapterhubError):
            list(store.read(store.resolve(REF), "no-such-file"))

    def test_revisions_follow_each_other_and_stay(
        self, store: Store, folder: Path, revised: Path
    ) -> None:
        first = publish(store, folder)
        second = publish(store, revised, parent=first.commit)
        assert second.commit != first.commit
        assert store.resolve(REF).commit == second.commit
        old = store.resolve(Ref(namespace=REF.namespace, name=REF.name, revision=first.commit))
        assert old.commit == first.commit
        assert old.repo_uuid == second.repo_uuid
        assert _contents(store, old) >= _files(folder).items()
        with pytest.raises(UnknownRevisionError):
            store.resolve(Ref(namespace=REF.namespace, name=REF.name, revision="f" * 40))

    def test_whoever_was_slower_changes_nothing(
        self, store: Store, folder: Path, revised: Path
    ) -> None:
        first = publish(store, folder)
        second = publish(store, revised, parent=first.commit)
        with pytest.raises(ConflictError):
            publish(store, folder, parent=first.commit)
        assert store.resolve(REF).commit == second.commit

    def test_what_was_published_is_listed_and_found(self, store: Store, folder: Path) -> None:
        publish(store, folder)
        assert str(REF) in store.names(REF.namespace)
        if self.searches:
            assert str(REF) in [line.id for line in store.search("tiny")]
            assert store.search("no-such-name-anywhere") == []

    def test_what_was_removed_is_gone(self, store: Store, folder: Path) -> None:
        made = publish(store, folder)
        store.remove(REF)
        with pytest.raises(RemovedError if self.tombstones else NotFoundError):
            store.resolve(REF)
        assert store.names() == []
        again = publish(store, folder)
        assert again.repo_uuid != made.repo_uuid, (
            "two repositories of one name are told apart by it"
        )


def publish(store: Store, folder: Path, *, parent: str | None = None) -> Snapshot:
    return store.publish(REF, folder, message="conformance", parent=parent)


def write_adapter(folder: Path, *, alpha: int = 4) -> Path:
    """A LoRA's folder with two tensors, made without torch."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "acme/tiny",
        "r": 2,
        "lora_alpha": alpha,
        "target_modules": ["q_proj"],
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    site = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {f"{site}.lora_A.weight": [2, 8], f"{site}.lora_B.weight": [8, 2]}
    header, body = {}, b""
    for name, shape in shapes.items():
        data = struct.pack("<f", 0.5) * 16
        header[name] = {
            "dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)],
        }  # fmt: skip
        body += data
    head = json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(head)) + head + body)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _contents(store: Store, snapshot: Snapshot) -> set[tuple[str, bytes]]:
    return {(entry.path, b"".join(store.read(snapshot, entry.path))) for entry in snapshot.files}
