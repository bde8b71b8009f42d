"""A merged folder: a plain model that answers as the base does with the adapters attached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.patch import Affine, Patch, Weights
from adapterhub.errors import AdapterhubError, CapabilityError, MismatchError
from adapterhub.models.fold import Part
from adapterhub.models.loader import Base
from adapterhub.models.mapped import mapped_base
from adapterhub.models.merged_model import Written, write_merged_model
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain
from adapterhub.testing.ground import apart
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base, temporary_home

pytestmark = pytest.mark.models

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"rank": 4}),
    "dora": ("lora", {"rank": 4, "dora": True}),
    "ia3": ("ia3", {}),
    "ln_tuning": ("ln_tuning", {}),
    "full": ("full", {}),
    "head": ("lora", {"rank": 4, "targets": "lm_head,q_proj"}),
}
CASES = [
    *(("lora", family, "nf4") for family in ("qwen2", "phi3", "gpt2")),
    ("dora", "llama", "nf4"),
    ("ia3", "gpt2", "nf4"),
    ("lora", "llama", "bf16"),
    ("dora", "gpt2", "bf16"),
    ("ia3", "llama", "bf16"),
    ("full", "qwen2", "bf16"),
    ("full", "gpt2", "bf16"),
]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with temporary_home(tmp_path_factory.mktemp("home")) as place:
        yield place


def attached(base: Base, names: Sequence[tuple[str, float]]) -> tuple[Any, list[Part]]:
    """Logits with fresh, shaken adapters attached, and what to fold for the same."""
    adapters = []
    parts: list[Part] = []
    for seed, (name, weight) in enumerate(names):
        method, options = METHODS[name]
        made = method_of(method)
        with quiet():
            config = made.new_config(base.spec, options)
            adapter = made.attach(base, f"slot{seed}", config, seed=seed)
        shake(adapter, seed=seed, size=0.02)
        adapters.append((adapter, weight))
    for adapter, weight in adapters:
        adapter.activate(weight)
    expected = plain.logits_of(base.model)
    for (name, weight), (adapter, _) in zip(names, adapters, strict=True):
        adapter.deactivate()
        state = adapter.state()
        adapter.detach()
        patches = method_of(METHODS[name][0]).patches(adapter.config, state, base)
        parts.append((list(patches), weight))
    return expected, parts


def loaded(folder: Path) -> Any:
    """As anybody would load it who has never heard of us."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet():
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def written(base: Base, parts: Sequence[Part], out: Path, *, into: str, **more: Any) -> Written:
    out.mkdir()
    with mapped_base(base.spec) as stored:
        return write_merged_model(stored, parts, out, into=into, **more)


@pytest.mark.parametrize(("name", "family", "scheme"), CASES)
def test_the_folder_answers_as_the_attached_adapter(
    name: str, family: str, scheme: str, home: Path, tmp_path: Path
) -> None:
    base = add_tiny_base(family, scheme, home, dense=True)
    before = plain.logits_of(base.model)
    expected, parts = attached(base, [(name, 1.0)])
    made = written(base, parts, tmp_path / "out", into="float32")
    found = plain.logits_of(loaded(tmp_path / "out"))
    assert apart(before, expected) > 1e-3
    assert apart(found, expected) < 1e-5
    assert 0 < made.changed <= made.tensors


def test_several_add_up_with_their_weights(home: Path, tmp_path: Path) -> None:
    base = add_tiny_base("llama", "nf4", home, dense=True)
    expected, parts = attached(base, [("lora", 0.5), ("ia3", 1.0), ("ln_tuning", 2.0)])
    written(base, parts, tmp_path / "out", into="float32")
    assert apart(plain.logits_of(loaded(tmp_path / "out")), expected) < 1e-5


def test_a_change_of_the_head_alone_unties_it_from_the_embedding(
    home: Path, tmp_path: Path
) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    expected, parts = attached(base, [("head", 1.0)])
    made = written(base, parts, tmp_path / "out", into="float32")
    model = loaded(tmp_path / "out")
    assert made.untied
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    assert apart(plain.logits_of(model), expected) < 1e-5


def test_what_changes_head_and_embedding_alike_goes_to_both_where_they_part(
    home: Path, tmp_path: Path
) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    expected, parts = attached(base, [("full", 1.0), ("head", 1.0)])
    made = written(base, parts, tmp_path / "out", into="float32")
    assert made.untied
    assert apart(plain.logits_of(loaded(tmp_path / "out")), expected) < 1e-5


def test_a_change_of_both_leaves_them_tied(home: Path, tmp_path: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    _, parts = attached(base, [("full", 1.0)])
    made = written(base, parts, tmp_path / "out", into="float32")
    model = loaded(tmp_path / "out")
    assert not made.untied
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_many_files_with_an_index_are_one_model(home: Path, tmp_path: Path) -> None:
    base = add_tiny_base("llama", "bf16", home)
    expected, parts = attached(base, [("lora", 1.0)])
    written(base, parts, tmp_path / "out", into="float32", most=100_000)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 2
    assert apart(plain.logits_of(loaded(tmp_path / "out")), expected) < 1e-5


def test_matrices_are_stored_as_asked_and_vectors_stay_wide(home: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    base = add_tiny_base("llama", "bf16", home)
    _, parts = attached(base, [("lora", 1.0)])
    for into, code in (("bf16", "BF16"), ("fp16", "F16")):
        out = tmp_path / into
        written(base, parts, out, into=into)
        with safe_open(out / "model.safetensors", framework="pt") as file:
            kinds = {
                len(file.get_slice(name).get_shape()): file.get_slice(name).get_dtype()
                for name in file.keys()  # noqa: SIM118 - not a mapping
            }
        assert kinds == {1: "F32", 2: code}


def misfits() -> dict[str, tuple[tuple[str, Patch], type[AdapterhubError], str]]:
    import torch

    layer, ones = "model.layers.0.mlp.down_proj", torch.ones
    return {
        "another base's layer": (
            ("model.layers.9.mlp.up_proj", Affine(A=ones(2, 7), B=ones(9, 2))),
            MismatchError,
            "missing",
        ),
        "another shape": ((layer, Affine(A=ones(2, 7), B=ones(9, 2))), MismatchError, "(9, 7)"),
        "a bias that the family lacks": (
            (layer, Affine(bias=ones(64))),
            CapabilityError,
            "a plain qwen2 model has none",
        ),
        "one name of a shared tensor": (
            ("lm_head", Weights(difference=ones(263, 64))),
            CapabilityError,
            "lm_head.weight is one tensor with model.embed_tokens.weight",
        ),
        "a difference of another shape": (
            ("model.norm", Weights(difference=ones(3))),
            MismatchError,
            "(3,)",
        ),
        "a value that its type cannot hold": (
            (layer, Weights(difference=torch.full((64, 128), 1e6))),
            MismatchError,
            "not finite in float16",
        ),
    }


def test_what_a_plain_model_cannot_hold_is_refused_by_name(home: Path, tmp_path: Path) -> None:
    base = add_tiny_base("qwen2", "bf16", home)
    for number, (what, (patch, error, said)) in enumerate(misfits().items()):
        with pytest.raises(error) as caught:
            written(base, [([patch], 1.0)], tmp_path / str(number), into="fp16")
        assert said in str(caught.value.message), what
