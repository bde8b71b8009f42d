"""Three ways to recognise a base, and what each of them notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.base import Fingerprint, same_base
from adapterhub.errors import NotFoundError
from adapterhub.models.bases import base_folder
from adapterhub.models.fingerprint import fingerprint_folder, is_norm, sketch
from adapterhub.testing.tiny import add_tiny_base, temporary_home, write_tiny

pytestmark = pytest.mark.models

WEIGHTS = "model.safetensors"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    from safetensors.torch import load_file, save_file

    state = change(load_file(folder / WEIGHTS))
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def test_the_same_seed_is_the_same_base(tmp_path: Path) -> None:
    a, b = (fingerprint_folder(write_tiny("llama", tmp_path / n)) for n in "ab")
    assert a == b
    assert same_base(a, b) == "same"


def test_another_seed_shares_the_layout_alone(tmp_path: Path) -> None:
    a, b = (fingerprint_folder(write_tiny("llama", tmp_path / str(s), seed=s)) for s in (0, 1))
    assert a.layout == b.layout
    assert a.sketch != b.sketch
    assert a.content != b.content
    assert same_base(a, b) == "same layout"


def test_the_layout_differs_by_shape(tmp_path: Path) -> None:
    a, b = (fingerprint_folder(write_tiny("llama", tmp_path / str(n), layers=n)) for n in (1, 2))
    assert a.layout != b.layout


def test_one_byte_changes_the_content_and_not_the_layout(tmp_path: Path) -> None:
    folder = write_tiny("llama", tmp_path / "a")
    before = fingerprint_folder(folder)
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    after = fingerprint_folder(folder)
    assert after.content != before.content
    assert after.layout == before.layout


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen2", "gpt2"])
@pytest.mark.parametrize("scheme", ["nf4", "int8", "bf16"])
def test_the_sketch_survives_storing(family: str, scheme: str, home: Path) -> None:
    base = add_tiny_base(family, scheme, home)
    with temporary_home(home):
        stored = fingerprint_folder(base_folder(base.spec.name))
    assert stored.sketch == base.spec.fingerprint.sketch
    assert stored.content != base.spec.fingerprint.content


def test_the_sketch_survives_another_prefix(tmp_path: Path) -> None:
    folder = write_tiny("llama", tmp_path / "a")
    before = fingerprint_folder(folder)
    rewrite(folder, lambda state: {f"language_model.{k}": v for k, v in state.items()})
    after = fingerprint_folder(folder)
    assert after.sketch == before.sketch
    assert after.layout != before.layout
    assert same_base(after, before) == "convertible"


def test_the_sketch_survives_fusing_layers(tmp_path: Path) -> None:
    import torch

    def fuse(state: dict[str, Any]) -> dict[str, Any]:
        parts = [f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkv"]
        fused = torch.cat([state.pop(name) for name in parts])
        return {**state, "model.layers.0.self_attn.qkv_proj.weight": fused}

    folder = write_tiny("llama", tmp_path / "a")
    before = fingerprint_folder(folder)
    assert fingerprint_folder(rewrite(folder, fuse)).sketch == before.sketch


def test_the_sketch_notices_one_changed_norm(tmp_path: Path) -> None:
    def nudge(state: dict[str, Any]) -> dict[str, Any]:
        state["model.norm.weight"][3] += 1e-3
        return state

    folder = write_tiny("llama", tmp_path / "a")
    before = fingerprint_folder(folder)
    assert fingerprint_folder(rewrite(folder, nudge)).sketch != before.sketch


def test_the_sketch_follows_depth_and_not_the_alphabet() -> None:
    import torch

    norms = {f"model.layers.{i}.input_layernorm.weight": torch.full((4,), i) for i in range(12)}
    backwards = dict(reversed(norms.items()))
    swapped = {**norms, "model.layers.2.input_layernorm.weight": torch.full((4,), 10.0)}
    swapped["model.layers.10.input_layernorm.weight"] = torch.full((4,), 2.0)
    assert sketch(backwards) == sketch(norms)
    assert sketch(swapped) != sketch(norms)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("model.norm.weight", True),
        ("model.layers.3.input_layernorm.weight", True),
        ("model.layers.3.self_attn.q_norm.weight", True),
        ("transformer.h.0.ln_1.bias", True),
        ("transformer.ln_f.weight", True),
        ("model.layers.3.self_attn.q_proj.weight", False),
        ("model.layers.3.mlp.down_proj.weight.absmax", False),
        ("lm_head.weight", False),
    ],
)
def test_norms_are_known_by_name(name: str, norm: bool) -> None:
    assert is_norm(name) is norm


@pytest.mark.parametrize(
    ("file", "part"), [("tokenizer.json", "tokenizer"), ("chat_template.jinja", "chat_template")]
)
def test_the_text_side_is_told_apart_from_the_weights(file: str, part: str, tmp_path: Path) -> None:
    folder = write_tiny("llama", tmp_path / "a")
    before = fingerprint_folder(folder)
    with (folder / file).open("a") as stream:
        stream.write("\n")
    after = fingerprint_folder(folder)
    assert getattr(after, part) != getattr(before, part)
    assert same_base(after, before) == "same"


def test_a_base_without_text_files_says_so(tmp_path: Path) -> None:
    folder = write_tiny("llama", tmp_path / "a", template=None)
    (folder / "tokenizer.json").unlink()
    found = fingerprint_folder(folder)
    assert (found.tokenizer, found.chat_template) == (None, None)


def test_the_content_of_a_converted_base_is_that_of_its_file(tmp_path: Path) -> None:
    folder = write_tiny("llama", tmp_path / "a")
    found: Fingerprint = fingerprint_folder(folder, content="f" * 64)
    assert found.content == "f" * 64


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(NotFoundError, match="no safetensors"):
        fingerprint_folder(tmp_path)
