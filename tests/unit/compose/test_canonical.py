"""rsLoRA, alpha and patterns are gone from the config, and the function is what it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.manifest import CONFIG_FILE, WEIGHTS_FILE
from adapterhub.errors import CapabilityError
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from adapterhub.compose.canonical import canonicalize  # noqa: E402
from adapterhub.compose.members import Member  # noqa: E402

pytestmark = pytest.mark.models
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
Write = Callable[..., Member]
FORMS: dict[str, dict[str, Any]] = {
    "alpha": {"lora_alpha": 7},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {Q: 2}, "alpha_pattern": {DOWN: 5}},
    "all of them": {
        "use_rslora": True, "lora_alpha": 3, "rank_pattern": {DOWN: 6}, "alpha_pattern": {Q: 11},
    },
}  # fmt: skip


def delta(folder: Path, module: str, scaling: float) -> Any:
    state = load_file(folder / WEIGHTS_FILE)
    A, B = (state[f"base_model.model.{module}.lora_{part}.weight"].double() for part in "AB")
    return scaling * B @ A


@pytest.mark.parametrize("extra", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_deltas_are_equal_for_one_who_reads_rank_and_alpha_alone(
    adapter: Write, tmp_path: Path, extra: dict[str, Any], dtype: str
) -> None:
    source = adapter("own", rank=4, extra=extra, dtype=dtype)
    canonicalize(source, tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / CONFIG_FILE).read_bytes())
    folded = ("rank_pattern", "alpha_pattern", "use_rslora")
    assert [key for key in folded if config.get(key)] == []
    assert config["lora_alpha"] == config["r"]
    for module in (Q, DOWN):
        rank = extra.get("rank_pattern", {}).get(module, 4)
        alpha = extra.get("alpha_pattern", {}).get(module, extra.get("lora_alpha", 8))
        scaling = alpha / (rank**0.5 if extra.get("use_rslora") else rank)
        wanted = delta(source.folder.path, module, scaling)
        found = delta(tmp_path / "plain", module, 1.0)
        assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert verify_folder(tmp_path / "plain").ok


def test_smaller_ranks_are_padded_with_zeros(adapter: Write, tmp_path: Path) -> None:
    source = adapter("own", rank=4, extra={"rank_pattern": {Q: 2}})
    made = canonicalize(source, tmp_path / "plain")
    assert (made.rank, made.modules, made.padded) == (4, 2, 1)
    state = load_file(tmp_path / "plain" / WEIGHTS_FILE)
    assert not state[f"base_model.model.{Q}.lora_A.weight"][2:].any()
    assert not state[f"base_model.model.{Q}.lora_B.weight"][:, 2:].any()


def test_a_product_that_the_dtype_holds_stays_in_it(adapter: Write, tmp_path: Path) -> None:
    for name, alpha, dtype in (("twice", 8, torch.bfloat16), ("odd", 7, torch.float32)):
        source = adapter(name, rank=4, dtype="bfloat16", extra={"lora_alpha": alpha})
        canonicalize(source, tmp_path / f"plain-{name}")
        state = load_file(tmp_path / f"plain-{name}" / WEIGHTS_FILE)
        assert {tensor.dtype for tensor in state.values()} == {dtype}


@pytest.mark.parametrize(
    ("extra", "named"),
    [({"use_dora": True}, "DoRA"), ({"modules_to_save": ["lm_head"]}, "fully trained modules")],
)
def test_more_than_a_delta_is_refused_by_name(
    adapter: Write, tmp_path: Path, extra: dict[str, Any], named: str
) -> None:
    with pytest.raises(CapabilityError, match=named) as refused:
        canonicalize(adapter("own", extra=extra), tmp_path / "plain")
    assert ("--rank" in str(refused.value.hint)) is ("use_dora" in extra)
    assert not (tmp_path / "plain").exists()


def test_it_says_what_it_was_made_from(adapter: Write, tmp_path: Path) -> None:
    source = adapter("own")
    (source.folder.path / "chat_template.jinja").write_text("its own")
    canonicalize(source, tmp_path / "plain")
    manifest = read_folder(tmp_path / "plain").manifest
    assert (manifest.method, manifest.strategy) == ("lora", "canonical")
    assert [parent.sha256 for parent in manifest.parents] == [source.sha256]
    assert (tmp_path / "plain" / "chat_template.jinja").read_text() == "its own"
