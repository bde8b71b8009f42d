"""What makes two adapters the same one on a base."""

from __future__ import annotations

from pathlib import Path

from adapterhub.domain.refs import Ref
from adapterhub.runtime.resolve import Fetched, resolve_subject
from adapterhub.runtime.subjects import slot_of
from tests.adapter_files import write_lora


def no_remote(ref: Ref) -> Fetched:
    raise AssertionError(f"{ref} is a folder")


def slots(folder: Path) -> list[str]:
    return [slot_of(member) for member in resolve_subject(str(folder), no_remote).members]


def test_copies_of_an_adapter_share_a_slot(tmp_path: Path) -> None:
    assert slots(write_lora(tmp_path / "a")) == slots(write_lora(tmp_path / "b"))


def test_the_same_weights_at_another_scaling_are_another_adapter(tmp_path: Path) -> None:
    usual = write_lora(tmp_path / "a", lora_alpha=4)
    assert slots(usual) != slots(write_lora(tmp_path / "b", lora_alpha=400))
    assert slots(usual) != slots(write_lora(tmp_path / "c", use_rslora=True))
