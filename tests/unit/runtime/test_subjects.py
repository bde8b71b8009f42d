"""What a person names, made ready: a folder, a ref, A+0.5*B, a composition.toml, or one in one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapterhub.compose.members import outline
from adapterhub.compose.pin import pin as pin_members
from adapterhub.compose.pin import write_pinned
from adapterhub.compose.plan import make_plan
from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.refs import Ref
from adapterhub.errors import (
    CapabilityError,
    IntegrityError,
    NotFoundError,
    UsageError,
    VerificationError,
)
from adapterhub.formats.composition_file import encode_composition
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack
from adapterhub.runtime.resolve import Fetched, resolve_subject
from adapterhub.runtime.subjects import attach_subject, slot_of
from adapterhub.testing.plain import logits_of
from tests.adapter_files import f32, lora_tensors, write_lora

pytestmark = pytest.mark.models


class Shelf:
    """Where refs lead in these tests: folders under one root, the revision as their commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []

    def add(self, ref: str, value: float) -> Path:
        tensors = {k: f32(shape, value) for k, (_, shape, _) in lora_tensors().items()}
        return write_lora(self.root / ref, tensors=tensors)

    def fetch(self, ref: Ref) -> Fetched:
        self.asked.append(str(ref))
        if ref.remote not in (None, "team") or not (self.root / ref.id).is_dir():
            raise NotFoundError(f"no adapter is called {ref}")
        return Fetched(
            folder=self.root / ref.id, commit=ref.revision or "c0ffee", remote=ref.remote or "local"
        )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "shelf")
    for value, ref in enumerate(("acme/a", "acme/b", "acme/c"), start=1):
        shelf.add(ref, value / 8)
    return shelf


def sha_of(folder: Path) -> str:
    return sha256_hex((folder / "adapter_model.safetensors").read_bytes())


def pin(shelf: Shelf, **weights: float) -> PinnedComposition:
    return PinnedComposition(
        base=BaseRecord(id="acme/tiny"),
        terms=tuple(
            PinnedTerm(ref=f"acme/{n}", weight=w, sha256=sha_of(shelf.root / "acme" / n))
            for n, w in weights.items()
        ),
    )


def members(text: str, shelf: Shelf) -> list[tuple[str, float]]:
    return [(m.ref, m.weight) for m in resolve_subject(text, shelf.fetch).members]


# --- what may be named ------------------------------------------------------------------------


def test_a_folder_is_one_adapter_and_nothing_is_fetched(shelf: Shelf) -> None:
    path = str(shelf.root / "acme" / "a")
    subject = resolve_subject(path, shelf.fetch)
    assert subject.single
    assert [(m.ref, m.weight) for m in subject.members] == [(path, 1.0)]
    assert shelf.asked == []


def test_a_ref_is_fetched_with_its_commit(shelf: Shelf) -> None:
    subject = resolve_subject("acme/a@v1", shelf.fetch)
    assert shelf.asked == ["acme/a@v1"]
    assert subject.members[0].commit == "v1"
    assert subject.bases == (BaseRecord(id="acme/tiny"),)


def test_a_sum_has_the_weights_it_was_written_with(shelf: Shelf) -> None:
    assert members("acme/a+0.5*acme/b", shelf) == [("acme/a", 1.0), ("acme/b", 0.5)]


def test_one_adapter_with_a_weight_is_no_longer_the_stored_one(shelf: Shelf) -> None:
    subject = resolve_subject("0.5*acme/a", shelf.fetch)
    assert not subject.single
    assert subject.members[0].weight == 0.5


def test_a_folder_takes_part_in_a_sum(shelf: Shelf) -> None:
    path = str(shelf.root / "acme" / "a")
    assert members(f"{path}+acme/b", shelf) == [(path, 1.0), ("acme/b", 1.0)]


def test_a_composition_file_is_its_members(shelf: Shelf, tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    file.write_bytes(encode_composition(pin(shelf, a=1.0, b=-0.5)))
    assert members(str(file), shelf) == [("acme/a", 1.0), ("acme/b", -0.5)]


def test_a_composition_folder_is_its_members(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "composition.toml").write_bytes(
        encode_composition(pin(shelf, a=1.0, b=-0.5))
    )
    assert members(str(tmp_path / "both"), shelf) == [("acme/a", 1.0), ("acme/b", -0.5)]


def test_a_composition_within_a_sum_multiplies_its_weights(shelf: Shelf) -> None:
    folder = shelf.root / "acme" / "both"
    folder.mkdir()
    (folder / "composition.toml").write_bytes(encode_composition(pin(shelf, a=1.0, b=-0.5)))
    expected = [("acme/c", 1.0), ("acme/a", 2.0), ("acme/b", -1.0)]
    assert members("acme/c+2*acme/both", shelf) == expected


def test_a_pinned_commit_is_what_is_fetched(shelf: Shelf, tmp_path: Path) -> None:
    pinned = pin(shelf, a=1.0)
    pinned = replace(pinned, terms=(replace(pinned.terms[0], commit="abc123"),))
    (tmp_path / "one.toml").write_bytes(encode_composition(pinned))
    resolve_subject(str(tmp_path / "one.toml"), shelf.fetch)
    assert shelf.asked == ["acme/a@abc123"]


def test_equal_bytes_share_a_slot_whatever_they_are_called(shelf: Shelf) -> None:
    shelf.add("acme/copy", 1 / 8)
    a, copy = (resolve_subject(ref, shelf.fetch) for ref in ("acme/a", "acme/copy"))
    assert [slot_of(m) for m in a.members] == [slot_of(m) for m in copy.members]


# --- what is refused --------------------------------------------------------------------------


def test_the_same_adapter_twice_is_refused(shelf: Shelf) -> None:
    shelf.add("acme/copy", 1 / 8)
    with pytest.raises(UsageError, match=r"acme/a and acme/copy .* are the same adapter"):
        resolve_subject("acme/a+acme/copy", shelf.fetch)
    with pytest.raises(UsageError, match="appears twice"):
        resolve_subject("acme/a+2*acme/a", shelf.fetch)


def test_the_same_adapter_alone_and_within_a_composition_is_refused(shelf: Shelf) -> None:
    folder = shelf.root / "acme" / "both"
    folder.mkdir()
    (folder / "composition.toml").write_bytes(encode_composition(pin(shelf, a=1.0, b=0.5)))
    with pytest.raises(UsageError, match="the same adapter"):
        resolve_subject("acme/a+acme/both", shelf.fetch)


def test_a_pinned_adapter_that_changed_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "both.toml").write_bytes(encode_composition(pin(shelf, a=1.0, b=0.5)))
    shelf.add("acme/b", 0.75)
    with pytest.raises(IntegrityError, match="acme/b is not the adapter that was pinned"):
        resolve_subject(str(tmp_path / "both.toml"), shelf.fetch)


def test_a_composition_that_names_itself_is_refused(shelf: Shelf) -> None:
    folder = shelf.root / "acme" / "loop"
    folder.mkdir()
    looped = PinnedTerm(ref="acme/loop", weight=1.0, sha256="0" * 64)
    pinned = PinnedComposition(base=BaseRecord(id="acme/tiny"), terms=(looped,))
    (folder / "composition.toml").write_bytes(encode_composition(pinned))
    with pytest.raises(UsageError, match="no weights of its own"):
        resolve_subject("acme/loop", shelf.fetch)


@pytest.mark.parametrize("text", ["", "a", "acme/a+", "x*acme/a"])
def test_what_is_no_name_is_refused_before_anything_is_fetched(text: str, shelf: Shelf) -> None:
    with pytest.raises(UsageError):
        resolve_subject(text, shelf.fetch)
    assert shelf.asked == []


@pytest.mark.parametrize("text", ["../a", "acme/a/b", "/nowhere/a", "2*./a"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(text: str, shelf: Shelf) -> None:
    with pytest.raises(NotFoundError, match="there is no folder"):
        resolve_subject(text, shelf.fetch)
    assert shelf.asked == []


def test_an_adapter_that_changes_nothing_is_refused_unless_allowed(shelf: Shelf) -> None:
    shelf.add("acme/zero", 0.0)
    with pytest.raises(VerificationError, match="zero"):
        resolve_subject("acme/a+acme/zero", shelf.fetch)
    allowed = resolve_subject("acme/zero", shelf.fetch, allow=frozenset({"no-effect"}))
    assert allowed.single


def test_a_pinned_adapter_whose_scaling_changed_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    members = resolve_subject("acme/a+acme/b", shelf.fetch).members
    plan = make_plan([outline(m) for m in members], strategy=catalog().strategies["linear"])
    write_pinned(tmp_path / "both.toml", pin_members(members, plan))
    tensors = {k: f32(shape, 2 / 8) for k, (_, shape, _) in lora_tensors().items()}
    write_lora(shelf.root / "acme" / "b", tensors=tensors, lora_alpha=800)
    with pytest.raises(IntegrityError, match=r"acme/b .* adapter_config.json has changed"):
        resolve_subject(str(tmp_path / "both.toml"), shelf.fetch)


def test_members_are_sought_where_their_composition_came_from(shelf: Shelf) -> None:
    folder = shelf.root / "acme" / "both"
    folder.mkdir()
    (folder / "composition.toml").write_bytes(encode_composition(pin(shelf, a=1.0, b=0.5)))
    subject = resolve_subject("team:acme/both", shelf.fetch)
    assert shelf.asked == ["team:acme/both", "team:acme/a", "team:acme/b"]
    assert {member.remote for member in subject.members} == {"team"}


def test_a_truncated_sum_is_no_part_of_another_sum(shelf: Shelf, tmp_path: Path) -> None:
    pinned = replace(pin(shelf, a=1.0, b=0.5), strategy="svd", rank=2)
    folder = shelf.root / "acme" / "svd"
    folder.mkdir()
    (folder / "composition.toml").write_bytes(encode_composition(pinned))
    with pytest.raises(CapabilityError, match="combined by svd"):
        resolve_subject("acme/c+acme/svd", shelf.fetch)
    half = resolve_subject("0.5*acme/svd", shelf.fetch)
    assert (half.strategy, half.rank) == ("svd", 2)
    assert [member.weight for member in half.members] == [0.5, 0.25]


# --- attaching --------------------------------------------------------------------------------


def test_an_attached_composition_answers_as_the_sum_of_its_members(
    base: Base, tmp_path: Path, stored: Callable[..., Path]
) -> None:
    one, two = (str(stored(n, seed=s)) for s, n in enumerate(("one", "two")))
    rack = Rack(base)
    rack.activate(attach_subject(rack, resolve_subject(f"{one}+0.5*{two}", Shelf(tmp_path).fetch)))
    together = logits_of(base.model)
    swapped = resolve_subject(f"0.5*{two}+{one}", Shelf(tmp_path).fetch)
    rack.activate(attach_subject(rack, swapped))
    assert (logits_of(base.model) - together).abs().max() < 1e-4
    assert len(rack.attached) == 2
    rack.activate(())
    assert (logits_of(base.model) - together).abs().max() > 1e-3


def test_a_strategy_that_only_merges_is_not_attached(
    base: Base, shelf: Shelf, tmp_path: Path
) -> None:
    pinned = replace(pin(shelf, a=1.0, b=0.5), strategy="svd")
    (tmp_path / "both.toml").write_bytes(encode_composition(pinned))
    subject = resolve_subject(str(tmp_path / "both.toml"), shelf.fetch)
    with pytest.raises(CapabilityError, match="svd"):
        attach_subject(Rack(base), subject)


def test_a_weight_means_nothing_to_a_rescaled_base(
    base: Base, tmp_path: Path, stored: Callable[..., Path]
) -> None:
    folder = stored("dora", dora=True)
    fetch, rack = Shelf(tmp_path).fetch, Rack(base)
    with pytest.raises(CapabilityError, match=rf"0.5\*{folder}: .*DoRA"):
        attach_subject(rack, resolve_subject(f"0.5*{folder}", fetch))
    attach_subject(rack, resolve_subject(str(folder), fetch))


def test_adapters_that_cannot_be_merged_are_attached_beside_others(
    base: Base, tmp_path: Path, stored: Callable[..., Path]
) -> None:
    lora, dora = stored("lora", seed=1), stored("dora", dora=True)
    subject = resolve_subject(f"{lora}+{dora}", Shelf(tmp_path).fetch)
    rack = Rack(base)
    slots = attach_subject(rack, subject)
    bare = logits_of(base.model)
    answers = []
    for chosen in (slots[:1], slots[1:], slots):
        rack.activate(chosen)
        answers.append(logits_of(base.model))
    assert all((answer - bare).abs().max() > 1e-3 for answer in answers)
    assert (answers[2] - answers[0]).abs().max() > 1e-3
    outlines = [outline(member) for member in subject.members]
    with pytest.raises(CapabilityError, match=rf"{dora}, a lora adapter, cannot be merged: .*DoRA"):
        make_plan(outlines, strategy=catalog().strategies["linear"])


def test_a_sequence_keeps_the_order_it_was_written_in(shelf: Shelf, tmp_path: Path) -> None:
    for order in (("a", "b"), ("b", "a")):
        pinned = replace(pin(shelf, **dict.fromkeys(order, 1.0)), strategy="sequential")
        (tmp_path / "line.toml").write_bytes(encode_composition(pinned))
        subject = resolve_subject(str(tmp_path / "line.toml"), shelf.fetch)
        assert subject.sequential
        assert [member.ref for member in subject.members] == [f"acme/{name}" for name in order]


def test_a_sequence_is_no_part_of_a_sum(shelf: Shelf) -> None:
    folder = shelf.root / "acme" / "line"
    folder.mkdir()
    pinned = replace(pin(shelf, a=1.0, b=1.0), strategy="sequential")
    (folder / "composition.toml").write_bytes(encode_composition(pinned))
    with pytest.raises(CapabilityError, match="combined by sequential"):
        resolve_subject("acme/c+acme/line", shelf.fetch)
    with pytest.raises(CapabilityError, match="acme/line is a sequence"):
        resolve_subject("0.5*acme/line", shelf.fetch)


def test_a_home_relative_path_is_a_folder(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(shelf.root))
    monkeypatch.chdir(os.fspath(shelf.root))
    assert members("~/acme/a", shelf) == [("~/acme/a", 1.0)]
