"""A composition that was pinned is the same adapters later, or says which one is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapterhub.domain.composition import PinnedTerm
from adapterhub.domain.manifest import Manifest
from adapterhub.errors import IntegrityError, UsageError
from adapterhub.formats.composition_file import decode_composition
from adapterhub.hub.folder import AdapterFolder, read_folder
from adapterhub.plugin.catalog import catalog

pytest.importorskip("torch")

from adapterhub.compose.members import Member, open_member, outline
from adapterhub.compose.pin import pin, reopen, write_pinned
from adapterhub.compose.plan import arrange, make_plan

pytestmark = pytest.mark.models


def test_a_pinned_composition_comes_back_as_it_was(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("acme/a", seed=1), adapter("acme/b", seed=2, weight=0.5)]
    svd = catalog().strategies["svd"]
    plan = make_plan([outline(member) for member in members], strategy=svd, rank=3)
    path = write_pinned(tmp_path, pin(members, plan))
    assert path.name == "composition.toml"
    pinned = decode_composition(path.read_bytes())
    assert (pinned.strategy, pinned.rank, pinned.base.id) == ("svd", 3, "acme/tiny")
    again = reopen(pinned, lambda term: read_folder(tmp_path / term.ref))
    assert list(again) == members


def test_a_pin_holds_the_sha256_of_the_weights(adapter: Callable[..., Member]) -> None:
    member = adapter("acme/a")
    path = member.folder.weights_path
    assert path is not None
    assert member.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_adapter_that_changed_is_refused_by_name_and_commit(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("acme/a", seed=1), replace(adapter("acme/b", seed=2), commit="c" * 40)]
    linear = catalog().strategies["linear"]
    pinned = pin(members, make_plan([outline(m) for m in members], strategy=linear))
    adapter("later/b", seed=3)

    def find(term: PinnedTerm) -> AdapterFolder:
        return read_folder(tmp_path / term.ref.replace("acme/b", "later/b"))

    with pytest.raises(IntegrityError, match=r"acme/b@cccccccccccc is not the adapter"):
        reopen(pinned, find)


def test_a_composition_file_is_not_overwritten_unasked(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("acme/a")]
    linear = catalog().strategies["linear"]
    pinned = pin(members, make_plan([outline(m) for m in members], strategy=linear))
    path = write_pinned(tmp_path / "mine.toml", pinned)
    with pytest.raises(UsageError, match=r"mine\.toml already exists"):
        write_pinned(path, replace(pinned, strategy="svd"))
    write_pinned(path, replace(pinned, strategy="svd"), overwrite=True)
    assert decode_composition(path.read_bytes()).strategy == "svd"


def designed(folder: Path, system: str) -> Path:
    config = {"method": "prompt_design", "base_model_name_or_path": "acme/tiny", "system": system}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_without_tensors_is_pinned_by_its_config(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    folder = designed(tmp_path / "acme" / "words", "One.")
    members = [adapter("acme/a"), open_member("acme/words", read_folder(folder))]
    assert members[1].sha256 == members[1].config_sha256
    plan = arrange([outline(m) for m in members], strategy=catalog().strategies["linear"])
    path = write_pinned(tmp_path, pin(members, plan))
    pinned = decode_composition(path.read_bytes())

    def find(term: PinnedTerm) -> AdapterFolder:
        return read_folder(tmp_path / term.ref)

    assert list(reopen(pinned, find)) == members
    designed(folder, "Two.")
    with pytest.raises(IntegrityError, match="acme/words is not the adapter that was pinned"):
        reopen(pinned, find)


def test_an_adapter_without_weights_cannot_take_part(adapter: Callable[..., Member]) -> None:
    manifest: Manifest = adapter("acme/a").folder.manifest
    bare = AdapterFolder(Path("nowhere"), manifest, None, None)
    with pytest.raises(UsageError, match="acme/bare has no weights"):
        open_member("acme/bare", bare)
