"""A merge writes one folder that says what it is, is as exact as promised, or is not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import (
    CapabilityError,
    FormatError,
    MismatchError,
    NoEffectError,
    PluginError,
    UsageError,
)
from adapterhub.plugin.catalog import catalog

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from adapterhub.compose.executor import Merged, merge  # noqa: E402
from adapterhub.compose.members import Member, open_patches, outline  # noqa: E402
from adapterhub.compose.plan import make_plan  # noqa: E402
from adapterhub.hub.folder import read_folder  # noqa: E402

pytestmark = pytest.mark.models

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


def planned(members: Sequence[Member], strategy: str = "linear", rank: int | None = None) -> Any:
    outlines = [outline(member) for member in members]
    return make_plan(outlines, strategy=catalog().strategies[strategy], rank=rank)


def merged(
    members: Sequence[Member], out: Path, strategy: str = "linear", rank: int | None = None
) -> Merged:
    return merge(members, planned(members, strategy, rank), out)


def dense(folder: Path, *, scaling: float) -> dict[str, Any]:
    """Module -> scaling * B A in float64."""
    state = load_file(folder / "adapter_model.safetensors")
    modules = {name.split(".lora_")[0] for name in state}
    return {
        module.removeprefix("base_model.model."): scaling
        * state[f"{module}.lora_B.weight"].double()
        @ state[f"{module}.lora_A.weight"].double()
        for module in modules
    }


def exact(members: Sequence[Member]) -> dict[str, Any]:
    """The weighted sum, the plain way; the adapters here have alpha = 2 r."""
    sums: dict[str, Any] = {}
    for member in members:
        for module, delta in dense(member.folder.path, scaling=2.0).items():
            sums[module] = sums.get(module, 0.0) + member.weight * delta
    return sums


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    assert one.keys() == other.keys()
    error = sum(float((one[module] - other[module]).square().sum()) for module in other)
    return float((error / sum(float(delta.square().sum()) for delta in other.values())) ** 0.5)


def test_linear_writes_the_exact_sum(adapter: Callable[..., Member], tmp_path: Path) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2, rank=6, weight=-0.3)]
    result = merged(members, tmp_path / "out")
    assert distance(dense(result.folder, scaling=1.0), exact(members)) < 1e-6
    assert result.relative_error < 1e-6
    assert result.rank == 10


@pytest.mark.parametrize("strategy", ["linear", "svd"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_error_reported_is_that_of_the_tensors_in_the_file(
    adapter: Callable[..., Member], tmp_path: Path, strategy: str, dtype: str
) -> None:
    members = [
        adapter("a", seed=1, dtype=dtype, weight=0.7),
        adapter("b", seed=2, dtype=dtype, shapes={Q: (24, 16)}),
    ]
    result = merged(members, tmp_path / "out", strategy)
    stored, wanted = dense(result.folder, scaling=1.0), exact(members)
    assert result.relative_error == pytest.approx(distance(stored, wanted), rel=1e-6)
    for one in result.per_module:
        theirs = distance({one.module: stored[one.module]}, {one.module: wanted[one.module]})
        assert one.relative_error == pytest.approx(theirs, rel=1e-6)
    assert {one.module for one in result.per_module} == {Q, DOWN}


def test_the_folder_names_parents_strategy_and_exactly_the_merged_modules(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2, weight=0.5, shapes={Q: (24, 16)})]
    result = merged(members, tmp_path / "out", "svd", 3)
    folder = read_folder(result.folder)
    parents = [(parent.ref, parent.weight, parent.sha256) for parent in folder.manifest.parents]
    assert parents == [(member.ref, member.weight, member.sha256) for member in members]
    assert folder.manifest.strategy == "svd"
    assert folder.manifest.base.id == "acme/tiny"
    assert not folder.manifest.inferred
    assert folder.config is not None
    assert folder.config["target_modules"] == [DOWN, Q]
    assert folder.config["task_type"] == "CAUSAL_LM"
    assert "acme/tiny" in (result.folder / "README.md").read_text()


def test_a_merged_adapter_can_be_merged_again(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    from adapterhub.compose.members import open_member

    members = [adapter("a", seed=1), adapter("b", seed=2, rank=2, shapes={Q: (24, 16)})]
    first = merged(members, tmp_path / "first")
    again = [open_member("first", read_folder(first.folder), weight=2.0)]
    second = merged(again, tmp_path / "second")
    doubled = {module: 2.0 * delta for module, delta in exact(members).items()}
    assert distance(dense(second.folder, scaling=1.0), doubled) < 1e-6


@pytest.mark.parametrize("strategy", ["linear", "svd"])
def test_the_same_members_give_the_same_bytes(
    adapter: Callable[..., Member], tmp_path: Path, strategy: str
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    one, two = (merged(members, tmp_path / str(i) / "out", strategy).folder for i in range(2))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_the_order_of_the_members_does_not_matter(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2, rank=2), adapter("c", seed=3)]
    ahead = merged(members, tmp_path / "ahead", "svd").folder
    back = merged(members[::-1], tmp_path / "back", "svd").folder
    assert distance(dense(back, scaling=1.0), dense(ahead, scaling=1.0)) < 1e-6


def test_a_step_is_reported_as_each_module_is_done(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    heard: list[str] = []
    plan = planned(members)
    merge(members, plan, tmp_path / "out", on_step=lambda step: heard.append(step.module))
    assert heard == [step.module for step in plan.steps]


def test_an_adapter_already_there_is_kept_unless_overwriting_is_asked_for(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    out = merged(members, tmp_path / "out").folder
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds an adapter"):
        merged(members, out)
    assert (out / "notes.txt").read_text() == "mine"
    merge(members, planned(members), out, overwrite=True)
    assert not (out / "notes.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_holds_something_else_is_never_overwritten(
    adapter: Callable[..., Member], tmp_path: Path, overwrite: bool
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="never overwritten"):
        merge(members, planned(members), home, overwrite=overwrite)
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_filled(adapter: Callable[..., Member], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    merged([adapter("a", seed=1)], tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MismatchError("a later module")])
def test_an_interrupted_merge_leaves_nothing_behind(
    adapter: Callable[..., Member], tmp_path: Path, interruption: Any
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2)]
    before = sorted(tmp_path.iterdir())

    def stop(_: object) -> None:
        raise interruption

    with pytest.raises((KeyboardInterrupt, MismatchError)):
        merge(members, planned(members), tmp_path / "out", on_step=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_members_that_cancel_are_refused_by_name(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("copy", seed=1, weight=-1.0)]
    with pytest.raises(NoEffectError, match="a and copy cancel"):
        merged(members, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sum_too_large_for_its_dtype_is_refused_naming_the_module(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    huge = {
        f"base_model.model.{Q}.lora_A.weight": torch.full((4, 16), 6e4, dtype=torch.float16),
        f"base_model.model.{Q}.lora_B.weight": torch.full((24, 4), 6e4, dtype=torch.float16),
    }
    member = adapter("a", dtype="float16", weight=100.0, tensors=huge, shapes={Q: (24, 16)})
    with pytest.raises(MismatchError, match=r"q_proj does not fit float16"):
        merged([member], tmp_path / "out")


def test_what_cannot_be_added_is_refused_naming_adapter_and_module(
    adapter: Callable[..., Member],
) -> None:
    bias = {f"base_model.model.{Q}.lora_B.bias": torch.ones(24)}
    odd = adapter("odd", tensors=bias, extra={"lora_bias": True})
    wide = adapter("wide", extra={"use_dora": True})
    for member, fact in ((odd, f"has a bias at {Q}"), (wide, "DoRA")):
        with pytest.raises(CapabilityError, match=rf"^{member.ref}, a lora adapter, .*{fact}"):
            make_plan([outline(member)], strategy=catalog().strategies["linear"])
    stray = {"base_model.model.lm_head.lora_C.weight": torch.ones(2, 2)}
    with pytest.raises(FormatError, match=r"^stray: .*lora_C"):
        outline(adapter("stray", tensors=stray))


def test_an_outline_reads_no_values(adapter: Callable[..., Member]) -> None:
    member = adapter("a", rank=4, dtype="bfloat16", extra={"rank_pattern": {Q: 2}})
    path = member.folder.weights_path
    assert path is not None
    header = path.read_bytes()[: 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    size = path.stat().st_size
    with path.open("wb") as file:  # the same header before a hole
        file.write(header)
        file.truncate(size)
    sites = outline(member).sites
    assert {module: (one.rank, *one.shape) for module, one in sites.items()} == {
        Q: (2, 24, 16),
        DOWN: (4, 16, 32),
    }
    assert {one.dtype for one in sites.values()} == {"bfloat16"}


def test_modules_can_be_taken_in_any_order_and_once(adapter: Callable[..., Member]) -> None:
    with open_patches(adapter("a")) as patches:
        assert patches.take(Q).rank == 4
        assert patches.take(DOWN).rank == 4
        with pytest.raises(PluginError, match=Q):
            patches.take(Q)


def test_ranks_that_differ_by_module_are_written_as_anchored_patterns(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    members = [adapter("a", seed=1), adapter("b", seed=2, rank=3, shapes={Q: (24, 16)})]
    result = merged(members, tmp_path / "out")
    config = json.loads((result.folder / "adapter_config.json").read_text())
    escaped = "^" + DOWN.replace(".", "\\.")
    assert (config["r"], config["lora_alpha"]) == (7, 7)
    assert config["rank_pattern"] == config["alpha_pattern"] == {escaped: 4}


def test_several_modules_at_once_give_the_same_bytes(
    adapter: Callable[..., Member], tmp_path: Path
) -> None:
    """As on a GPU; `cpu:0` is the same processor by a name that asks for it."""
    members = [adapter("a", seed=1), adapter("b", seed=2, rank=6)]
    plan = planned(members, "svd", 5)
    made = [
        merge(members, plan, tmp_path / device.replace(":", ""), device=device).folder
        for device in ("cpu", "cpu:0")
    ]
    one, other = ((folder / "adapter_model.safetensors").read_bytes() for folder in made)
    assert one == other
