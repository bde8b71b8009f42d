"""Promises of verification: what a folder holds is one adapter, of the method that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.formats.composition_file import encode_composition
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.verify import verify_folder
from tests.adapter_files import CONFIG, f32, lora_tensors, write_lora

PINNED = PinnedComposition(
    base=BaseRecord(id="acme/tiny"),
    terms=(PinnedTerm(ref="user/one", weight=1.0, sha256="a" * 64),),
)
IDLE = {name: f32(shape, 0.0) for name, (_, shape, _) in lora_tensors().items()}
UNTYPED = {key: value for key, value in CONFIG.items() if key != "peft_type"}


def codes(path: Path) -> list[str]:
    return [problem.code for problem in verify_folder(path).problems]


def write_manifest(folder: Path, *, method: str) -> Path:
    manifest = Manifest(method=method, config_version=1, base=BaseRecord(id="acme/tiny"))
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    return folder


@pytest.mark.parametrize("method", ["lora", "other"])
def test_dropping_the_type_of_the_config_switches_no_check_off(tmp_path: Path, method: str) -> None:
    folder = write_lora(tmp_path, tensors=IDLE, config=UNTYPED)
    found = codes(write_manifest(folder, method=method))
    assert [code for code in found if code != "unknown-method"] == ["method-disagrees", "no-effect"]


@pytest.mark.parametrize(
    ("method", "peft_type", "ok"),
    [
        ("lora", "LORA", True),
        ("lora", "lora", False),
        ("lora", "IA3", False),
        ("bottleneck", "LORA", False),
        ("bottleneck", "BOTTLENECK", True),
        ("composition", "LORA", False),
    ],
)
def test_manifest_and_config_name_one_method(
    tmp_path: Path, method: str, peft_type: str, ok: bool
) -> None:
    folder = write_manifest(write_lora(tmp_path, peft_type=peft_type), method=method)
    # What is of a LoRA alone is no key of another method's config, which is said first.
    assert set(codes(folder)).isdisjoint({"method-disagrees", "bad-config"}) == ok


def test_a_method_that_is_none_of_pefts_is_welcome(tmp_path: Path) -> None:
    folder = write_lora(tmp_path, tensors={"vector": f32((8,))}, config={"width": 8})
    assert codes(write_manifest(folder, method="own")) == ["unknown-method"]
    (folder / "adapter_config.json").unlink()
    assert codes(folder) == ["unknown-method"]


def test_a_broken_manifest_does_not_blame_the_config(tmp_path: Path) -> None:
    (write_lora(tmp_path) / "adapterhub.json").write_text("{")
    assert codes(tmp_path) == ["bad-manifest"]


def test_a_composition_needs_no_weights_and_no_method(tmp_path: Path) -> None:
    (tmp_path / "composition.toml").write_bytes(encode_composition(PINNED))
    assert codes(tmp_path) == []
    assert verify_folder(tmp_path).facts["members"] == "unchecked"
    assert codes(write_manifest(tmp_path, method="composition")) == []
    assert codes(write_manifest(tmp_path, method="lora"))[0] == "method-disagrees"


def test_an_adapter_beside_a_composition_is_one_too_many(tmp_path: Path) -> None:
    (write_lora(tmp_path) / "composition.toml").write_bytes(encode_composition(PINNED))
    assert codes(tmp_path) == ["two-adapters"]


@pytest.mark.parametrize(
    ("method", "code"),
    [("lora", "missing-weights"), ("composition", "missing-file"), ("own", "unknown-method")],
)
def test_a_manifest_alone_is_an_adapter_only_where_nothing_is_stored(
    tmp_path: Path, method: str, code: str
) -> None:
    assert code in codes(write_manifest(tmp_path, method=method))
