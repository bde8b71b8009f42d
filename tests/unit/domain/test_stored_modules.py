"""What a file holds is told from names alone: nothing missing or extra, no block forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapterhub.domain.stored_modules import (
    check_blocks,
    check_parts,
    check_targets,
    stored_modules,
)
from adapterhub.errors import MismatchError

NAMES = [f"model.layers.{n}.self_attn.{leaf}" for n in range(3) for leaf in ("q_proj", "k_proj")]


def tensors(*names: str) -> dict[str, Any]:
    return {name: SimpleNamespace(shape=(1,)) for name in names}


def test_tensors_are_sorted_into_modules() -> None:
    found = stored_modules("mine", tensors("x.b.up", "x.a.up", "x.a.down"), ["up", "down"])
    assert {module: set(parts) for module, parts in found.items()} == {
        "x.a": {"up", "down"},
        "x.b": {"up"},
    }
    with pytest.raises(MismatchError, match=r"x.b has no down"):
        check_parts(found, ["up", "down"])


@pytest.mark.parametrize("names", [(), ("a.left",), ("other.a.up",)])
def test_tensors_of_something_else_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(MismatchError) as caught:
        stored_modules("mine", tensors(*names), ["up"], prefix="x.")
    assert caught.value.hint


def test_targets_and_modules_name_each_other() -> None:
    check_targets(NAMES, ["q_proj", "self_attn.k_proj"])
    with pytest.raises(MismatchError, match="k_proj, which its config does not name"):
        check_targets(NAMES, ["q_proj"])
    with pytest.raises(MismatchError, match="no tensors for 'o_proj'"):
        check_targets(NAMES, ["q_proj", "k_proj", "o_proj"])


def test_a_block_that_lacks_what_others_have_is_noticed() -> None:
    check_blocks(NAMES, family="llama")
    with pytest.raises(MismatchError, match=r"no tensors for model.layers.2.self_attn.k_proj"):
        check_blocks(NAMES[:-1], family="llama")
    with pytest.raises(MismatchError, match=r"no tensors for model.layers.0"):
        check_blocks(NAMES[2:], family="llama")


def test_blocks_that_the_config_names_are_all_there_is() -> None:
    check_blocks(NAMES[2:4], family="llama", layers=[1])
    with pytest.raises(MismatchError, match=r"tensors that no config asks for, for .*layers.2"):
        check_blocks(NAMES[2:], family="llama", layers=[1])


def test_nothing_is_said_of_blocks_that_may_differ() -> None:
    check_blocks(NAMES[:-1], family=None)
    check_blocks(NAMES[:-1], family="mixed_experts")
