"""A strategy's own numbers: taken, refused, written down, and used again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.digest import sha256_hex
from adapterhub.errors import UsageError
from adapterhub.plugin.catalog import catalog

pytest.importorskip("torch")

from adapterhub.compose.executor import merge
from adapterhub.compose.members import Member, outline
from adapterhub.compose.pin import pin
from adapterhub.compose.plan import make_plan
from adapterhub.formats.composition_file import (
    decode_composition,
    encode_composition,
)
from adapterhub.hub.folder import read_folder

pytestmark = pytest.mark.models


def planned(members: list[Member], strategy: str, **options: Any) -> Any:
    rank = options.pop("rank", None)
    return make_plan(
        [outline(member) for member in members],
        strategy=catalog().strategies[strategy],
        rank=rank,
        options=options,
    )


def test_they_reach_the_strategy_and_the_manifest(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    sums: list[str] = []
    for seed in (1, 1, 2):
        out = tmp_path / f"merged-{len(sums)}"
        merge(members, planned(members, "dare_ties", density=0.5, seed=seed, rank=3), out)
        sums.append(sha256_hex((out / "adapter_model.safetensors").read_bytes()))
    assert sums[0] == sums[1] != sums[2]
    manifest = read_folder(out).manifest
    assert manifest.recipe == {"rank": 3, "density": 0.5, "seed": 2}


def test_a_share_to_keep_decides_each_modules_rank(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    for keep in (0.5, 0.999):
        merged = merge(members, planned(members, "svd", keep=keep), tmp_path / str(keep))
        assert merged.relative_error**2 <= 1 - keep + 1e-6


def test_what_a_strategy_does_not_take_is_refused_by_name(adapter: Callable[..., Member]) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    with pytest.raises(UsageError, match="svd has no option 'density'"):
        planned(members, "svd", density=0.5)
    with pytest.raises(UsageError, match="linear has no option 'keep'"):
        planned(members, "linear", keep=0.9)


def test_a_composition_keeps_them(adapter: Callable[..., Member]) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    pinned = pin(members, planned(members, "della", density=0.5, seed=7))
    again = decode_composition(encode_composition(pinned))
    assert again == pinned
    assert again.options == {"density": 0.5, "seed": 7}
    assert isinstance(dict(again.options)["seed"], int)
    assert again.composition.options == again.options


def test_without_any_nothing_is_written(adapter: Callable[..., Member]) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    assert b"options" not in encode_composition(pin(members, planned(members, "linear")))
