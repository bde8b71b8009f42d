"""The tiny bases that every other test stands on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapterhub.domain.evaluation import Message
from adapterhub.errors import UsageError
from adapterhub.models.fingerprint import sha256_file
from adapterhub.testing.plain import base_bytes
from adapterhub.testing.tiny import (
    CONTEXT,
    END,
    FAMILIES,
    VOCABULARY,
    add_tiny_base,
    temporary_home,
    tiny_model,
    write_tiny,
)

pytestmark = pytest.mark.models


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_decides_the_bytes(family: str, tmp_path: Path) -> None:
    first, again, other = (
        sha256_file(write_tiny(family, tmp_path / name, seed=seed) / "model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_base_is_small_and_whole(family: str, tmp_path: Path) -> None:
    base = add_tiny_base(family, "bf16", tmp_path)
    assert base.spec.stored_bytes < 500_000
    assert base.spec.context_length == CONTEXT
    assert base.model.config.vocab_size == VOCABULARY
    ids = base.chat.answer_ids((Message(role="user", content="안녕"),), "hello")
    assert ids[-1] == END


def test_a_base_is_added_once_and_loaded_as_often_as_wanted(tmp_path: Path) -> None:
    first, again = (add_tiny_base("llama", "nf4", tmp_path) for _ in range(2))
    assert first.spec == again.spec
    assert first.model is not again.model
    assert base_bytes(first.model) == base_bytes(again.model)


def test_another_family_is_refused() -> None:
    with pytest.raises(UsageError, match="no tiny 'bert' model"):
        tiny_model("bert")


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_the_home_is_as_it_was_afterwards(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADAPTERHUB_HOME", raising=False)
    if before is not None:
        monkeypatch.setenv("ADAPTERHUB_HOME", before)
    with temporary_home(tmp_path):
        assert os.environ["ADAPTERHUB_HOME"] == str(tmp_path)
    assert os.environ.get("ADAPTERHUB_HOME") == before


def test_making_a_model_leaves_the_random_numbers_of_the_caller_alone() -> None:
    import torch

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    tiny_model("llama")
    assert torch.equal(torch.rand(1), expected)
