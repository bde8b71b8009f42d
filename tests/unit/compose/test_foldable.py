"""What can become part of a base's weights, decided from patches and strategies alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterhub.compose.foldable import check_declared, check_sum, foldable
from adapterhub.domain.method import Capability, Method
from adapterhub.domain.patch import Affine, Block, Patch, Prompt, Weights
from adapterhub.errors import CapabilityError

FINE: list[tuple[str, Patch]] = [("a.b", Affine(row_scale=[2.0])), ("c", Weights(difference=[0.0]))]


def test_changes_of_weights_pass_as_they_are() -> None:
    assert list(foldable("acme/one", FINE)) == FINE


@pytest.mark.parametrize(
    ("module", "patch", "said"),
    [
        ("", Prompt(embeddings=[[0.0]]), "acme/one has a prompt before the input"),
        ("x.mlp", Block(module=None), "acme/one has a block beside x.mlp"),
    ],
)
def test_all_else_is_refused_by_name(module: str, patch: Block | Prompt, said: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        list(foldable("acme/one", [*FINE, (module, patch)]))
    assert caught.value.message.startswith(said)
    assert "attached" in (caught.value.hint or "")


def test_a_method_that_declares_no_merging_is_refused_by_name() -> None:
    record = Method(
        name="words",
        summary="",
        target="a:b",
        reference="",
        config_version=1,
        capabilities=frozenset(),
    )
    with pytest.raises(CapabilityError, match="acme/one is a words adapter") as caught:
        check_declared("acme/one", record)
    assert "attached" in (caught.value.hint or "")
    check_declared("acme/one", replace(record, capabilities=frozenset({Capability.MERGE})))


def test_only_a_plain_sum_is_folded() -> None:
    check_sum("A", strategy="sequential", members=1)
    check_sum("A+B", strategy="linear", members=2)
    with pytest.raises(CapabilityError, match="sequence"):
        check_sum("line.toml", strategy="sequential", members=2)
    with pytest.raises(CapabilityError, match="combined by ties") as caught:
        check_sum("both.toml", strategy="ties", members=2)
    assert caught.value.hint == (
        "write that first, then merge it: adapterhub stack both.toml -o DIR"
    )
