"""Promises of reading an adapter's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.errors import FormatError, NotFoundError
from adapterhub.formats.composition_file import encode_composition
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.folder import named_path, read_folder
from tests.adapter_files import write_lora

PINNED = PinnedComposition(
    base=BaseRecord(id="acme/tiny"),
    strategy="svd",
    terms=(PinnedTerm(ref="user/one", weight=0.5, sha256="a" * 64, commit="c"),),
)


def test_a_foreign_adapter_gets_a_manifest_that_admits_what_is_unknown(tmp_path: Path) -> None:
    folder = read_folder(write_lora(tmp_path, revision="a" * 40))
    assert folder.manifest == Manifest(
        method="lora",
        config_version=1,
        base=BaseRecord(id="acme/tiny", revision="a" * 40),
        inferred=True,
    )
    assert folder.weights_path == tmp_path / "adapter_model.safetensors"
    assert folder.config is not None
    assert folder.config["r"] == 2


def test_a_manifest_is_believed_before_anything_is_inferred(tmp_path: Path) -> None:
    manifest = Manifest(method="other", config_version=3, base=BaseRecord(id="acme/big"))
    (write_lora(tmp_path) / "adapterhub.json").write_bytes(encode_manifest(manifest))
    assert read_folder(tmp_path).manifest == manifest


def test_a_composition_alone_is_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "composition.toml").write_bytes(encode_composition(PINNED))
    folder = read_folder(tmp_path)
    assert folder.composition == PINNED
    assert folder.weights_path is None
    assert folder.manifest.strategy == "svd"
    assert folder.manifest.parents[0].ref == "user/one"
    assert folder.manifest.inferred


@pytest.mark.parametrize("name", ["adapter_model.bin", "weights.pt", "x.pkl", "y.pth", "Z.CKPT"])
def test_weights_as_a_pickle_alone_are_refused_by_name(tmp_path: Path, name: str) -> None:
    write_lora(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / name)
    with pytest.raises(FormatError, match=name) as caught:
        read_folder(tmp_path)
    assert "weights_only=True" in (caught.value.hint or "")


def test_a_pickle_beside_the_weights_is_left_alone(tmp_path: Path) -> None:
    (write_lora(tmp_path) / "optimizer.pt").write_bytes(b"\x80\x02")
    assert read_folder(tmp_path).manifest.method == "lora"


@pytest.mark.parametrize(
    ("removed", "fact"),
    [
        (["adapter_model.safetensors"], "no adapter_model.safetensors"),
        (["adapter_config.json"], "no adapter_config.json"),
        (["adapter_config.json", "adapter_model.safetensors"], "not an adapter"),
    ],
)
def test_half_an_adapter_is_not_one(tmp_path: Path, removed: list[str], fact: str) -> None:
    write_lora(tmp_path)
    for name in removed:
        (tmp_path / name).unlink()
    with pytest.raises(NotFoundError, match=fact) as caught:
        read_folder(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("method", ["lora", "composition"])
def test_a_manifest_alone_is_no_adapter(tmp_path: Path, method: str) -> None:
    manifest = Manifest(method=method, config_version=1, base=BaseRecord(id="acme/tiny"))
    (tmp_path / "adapterhub.json").write_bytes(encode_manifest(manifest))
    with pytest.raises(NotFoundError, match=f"which {method} needs"):
        read_folder(tmp_path)


def test_a_folder_is_one_adapter_and_not_two(tmp_path: Path) -> None:
    (write_lora(tmp_path) / "composition.toml").write_bytes(encode_composition(PINNED))
    with pytest.raises(FormatError, match="two adapters"):
        read_folder(tmp_path)


@pytest.mark.parametrize("text", ["./missing", "/missing", "~/missing", "a/b/c", "a\\b", "."])
def test_what_looks_like_a_path_is_one(text: str) -> None:
    assert named_path(text) is not None


@pytest.mark.parametrize(
    "text", ["", "user/one", "user/one@feature/x", "team:user/one", "https://h/a/b"]
)
def test_what_may_be_a_ref_is_left_to_the_remotes(text: str) -> None:
    assert named_path(text) is None


def test_the_home_of_nobody_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        named_path("~no-such-user-here/x")


def test_no_folder_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a folder"):
        read_folder(tmp_path / "nothing")


def test_a_base_nobody_names_is_not_guessed(tmp_path: Path) -> None:
    write_lora(tmp_path, base_model_name_or_path=None)
    with pytest.raises(FormatError, match="base_model_name_or_path"):
        read_folder(tmp_path)
