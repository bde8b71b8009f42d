"""An adapter of one layout says the same on the other, and plain peft loads what was written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402

from adapterhub.compose.convert import Converted, convert_layout  # noqa: E402
from adapterhub.compose.members import open_member  # noqa: E402
from adapterhub.domain.layout import Heads, Layout  # noqa: E402
from adapterhub.domain.manifest import WEIGHTS_FILE  # noqa: E402
from adapterhub.domain.match import record_of  # noqa: E402
from adapterhub.domain.quantization import scheme_by_name  # noqa: E402
from adapterhub.errors import AdapterhubError, CapabilityError, MismatchError, UsageError  # noqa: E402
from adapterhub.hub.folder import read_folder  # noqa: E402
from adapterhub.hub.verify import verify_folder  # noqa: E402
from adapterhub.models.bases import add_base  # noqa: E402
from adapterhub.models.loader import Base, load_base  # noqa: E402
from adapterhub.models.quiet import quiet  # noqa: E402
from adapterhub.runtime.attach import Rack, method_of  # noqa: E402
from adapterhub.testing import plain  # noqa: E402
from adapterhub.testing.practice import shake, train  # noqa: E402
from adapterhub.testing.tiny import temporary_home, tiny_model, write_tokenizer  # noqa: E402
from tests.plugins.plain_peft import answers_of, write_folder  # noqa: E402
from tests.split_twin import split_twin  # noqa: E402

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path:UserWarning"),
]
OTHER: dict[Layout, Layout] = {"fused": "split", "split": "fused"}
PREFIX = "base_model.model."
HEADS = Heads(queries=4, groups=2)
ATTENTION = "model.layers.0.self_attn"


@dataclass(frozen=True)
class Pair:
    """One model's weights in both layouts, as bases and as plain models in float32."""

    bases: Mapping[str, Base]

    def plain(self, layout: Layout) -> Any:
        import copy

        return copy.deepcopy(self.bases[layout].model)

    def trained(self, layout: Layout, folder: Path, method: str = "lora", **options: Any) -> Path:
        """An adapter trained for a few steps on the base of this layout."""
        base = self.bases[layout]
        made = method_of(method)
        adapter = made.attach(base, "t", made.new_config(base.spec, options))
        shake(adapter, size=0.02)
        train(base, adapter, steps=3)
        write_folder(adapter, folder)
        adapter.detach()
        return folder

    def convert(self, folder: Path, to: Layout, out: Path, **changes: Any) -> Converted:
        spec = self.bases[to].spec
        told = {"base": record_of(spec), "heads": HEADS, **changes}
        return convert_layout(open_member("acme/a", read_folder(folder)), out, layout=to, **told)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("home")
    fused = tiny_model("phi3")
    with temporary_home(home):
        bases = {}
        for layout, model in (("fused", fused), ("split", split_twin(fused))):
            source = write_tokenizer(home / layout)
            with quiet():
                model.save_pretrained(source)
            spec = add_base(layout, str(source), scheme_by_name("bf16"))
            bases[layout] = load_base(spec, device="cpu")
            bases[layout].model.float()
        yield Pair(bases)


LORAS: dict[str, dict[str, Any]] = {
    "all layers": {"rank": 4},
    "queries and values": {"rank": 4, "targets": "q_proj,v_proj"},
    "keys and up": {"rank": 2, "targets": "k_proj,up_proj,down_proj"},
    "patterns": {
        "rank": 4,
        "rslora": True,
        "rank_pattern": {"k_proj": 2, "layers.1.mlp.up_proj": 6},
        "alpha_pattern": {"v_proj": 3, "gate_proj": 20},
    },
    "dora": {"rank": 3, "dora": True},
}


@pytest.mark.parametrize("options", LORAS.values(), ids=LORAS)
def test_a_lora_trained_on_split_layers_says_the_same_on_fused_ones(
    pair: Pair, tmp_path: Path, options: dict[str, Any]
) -> None:
    check(pair, "split", tmp_path, "lora", options)


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_trained_on_fused_layers_says_the_same_on_split_ones(
    pair: Pair, tmp_path: Path, dora: bool
) -> None:
    options = {"rank": 4, "dora": dora, "rank_pattern": {"qkv_proj": 6}}
    check(pair, "fused", tmp_path, "lora", options)


@pytest.mark.parametrize("layout", ["fused", "split"])
def test_the_scales_of_ia3_move_with_their_rows(pair: Pair, tmp_path: Path, layout: Layout) -> None:
    check(pair, layout, tmp_path, "ia3", {})


@pytest.mark.parametrize("method", ["ln_tuning", "prompt_tuning"])
def test_a_method_of_other_places_is_carried_over_as_it_is(
    pair: Pair, tmp_path: Path, method: str
) -> None:
    folder = pair.trained("fused", tmp_path / "own", method)
    made = pair.convert(folder, "split", tmp_path / "other")
    assert (made.changes, made.kept) == ((), 0)
    assert verify_folder(tmp_path / "other", base=pair.bases["split"].spec).ok
    before, after = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("own", "other"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def check(pair: Pair, layout: Layout, place: Path, method: str, options: dict[str, Any]) -> None:
    """Through plain peft and through our own rack, against the adapter where it was trained."""
    folder = pair.trained(layout, place / "own", method, **options)
    other = OTHER[layout]
    pair.convert(folder, other, place / "other")
    report = verify_folder(place / "other", base=pair.bases[other].spec)
    assert report.ok, report.problems
    bare = plain.logits_of(pair.plain(layout))
    wanted = answers_of(pair.plain(layout), folder)
    assert (wanted - bare).abs().max() > 1e-2
    found = answers_of(pair.plain(other), place / "other")
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    rack = Rack(pair.bases[other])
    rack.attach("a", read_folder(place / "other"))
    rack.activate((("a", 1.0),))
    ours = plain.logits_of(pair.bases[other].model)
    rack.detach("a")
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-5)


def test_there_and_back_are_the_same_bits(pair: Pair, tmp_path: Path) -> None:
    options = LORAS["queries and values"]
    folder = pair.trained("split", tmp_path / "own", "lora", **options)
    pair.convert(folder, "fused", tmp_path / "fused")
    assert read_folder(tmp_path / "fused").config["r"] == 8  # type: ignore[index]
    pair.convert(tmp_path / "fused", "split", tmp_path / "back")
    before, after = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("own", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_parts_that_share_their_a_are_fused_at_its_rank(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("fused", tmp_path / "own", rank=4)
    pair.convert(folder, "split", tmp_path / "split")
    made = pair.convert(tmp_path / "split", "fused", tmp_path / "back")
    assert {change.rank for change in made.changes} == {4}
    before, after = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("own", "back"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_ranks_add_up_where_the_parts_were_trained_apart(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("split", tmp_path / "own", rank=2)
    made = pair.convert(folder, "fused", tmp_path / "fused")
    ranks = {change.after[0].rpartition(".")[2]: change.rank for change in made.changes}
    assert (ranks, made.rank, made.kept) == ({"qkv_proj": 6, "gate_up_proj": 4}, 6, 4)


def test_where_it_comes_from_and_what_it_is_for_are_written_down(
    pair: Pair, tmp_path: Path
) -> None:
    folder = pair.trained("split", tmp_path / "own", rank=2)
    source = open_member("acme/a", read_folder(folder))
    pair.convert(folder, "fused", tmp_path / "fused")
    manifest = read_folder(tmp_path / "fused").manifest
    [parent] = manifest.parents
    assert (parent.ref, parent.sha256, manifest.strategy) == ("acme/a", source.sha256, "to-fused")
    assert manifest.base == record_of(pair.bases["fused"].spec)


def test_trained_modules_that_both_layouts_have_are_kept(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("split", tmp_path / "own", rank=2)
    state = load_file(folder / WEIGHTS_FILE)
    state[f"{PREFIX}lm_head.weight"] = torch.ones(8, 8)
    save_file(state, folder / WEIGHTS_FILE)
    rewrite(folder, modules_to_save=["lm_head"])
    pair.convert(folder, "fused", tmp_path / "fused")
    assert f"{PREFIX}lm_head.weight" in load_file(tmp_path / "fused" / WEIGHTS_FILE)
    assert read_folder(tmp_path / "fused").config["modules_to_save"] == ["lm_head"]  # type: ignore[index]


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"modules_to_save": ["q_proj"]}, "q_proj"),
        ({"bias": "all"}, "biases of the base"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"layer_replication": [[0, 1]]}, "replicated"),
    ],
)
def test_what_is_more_than_factors_is_refused_by_name(
    pair: Pair, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    folder = pair.trained("split", tmp_path / "own", rank=2)
    rewrite(folder, **changes)
    with pytest.raises(CapabilityError, match=named):
        pair.convert(folder, "fused", tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_a_whole_difference_is_refused_by_the_layer(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("fused", tmp_path / "own", "full")
    with pytest.raises(CapabilityError, match=r"full adapter, changes .*(qkv|gate_up)_proj"):
        pair.convert(folder, "split", tmp_path / "split")


def test_a_dora_without_one_of_the_parts_is_refused(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("split", tmp_path / "own", rank=2, dora=True, targets="q_proj,k_proj")
    with pytest.raises(CapabilityError, match="v_proj, whose magnitudes"):
        pair.convert(folder, "fused", tmp_path / "fused")


REFUSED: dict[str, tuple[Layout, Heads | None, type[AdapterhubError], str]] = {
    "sizes unknown": ("fused", None, UsageError, "the base's business"),
    "other heads": ("fused", Heads(queries=5, groups=3), MismatchError, "do not divide"),
    "more heads": ("split", Heads(queries=8, groups=2), MismatchError, "8 heads of queries and 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sizes_are_never_guessed(pair: Pair, tmp_path: Path, case: str) -> None:
    layout, heads, error, named = REFUSED[case]
    folder = pair.trained(layout, tmp_path / "own", rank=2)
    with pytest.raises(error, match=named):
        pair.convert(folder, OTHER[layout], tmp_path / "other", heads=heads)


def test_the_family_s_rule_tells_the_sizes_without_a_base(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("fused", tmp_path / "own", rank=2)
    pair.convert(folder, "split", tmp_path / "base")
    pair.convert(folder, "split", tmp_path / "rule", heads=None, wide_queries=True)
    one, other = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("base", "rule"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_adapter_of_this_layout_already_is_left_alone(pair: Pair, tmp_path: Path) -> None:
    folder = pair.trained("fused", tmp_path / "own", rank=2)
    with pytest.raises(UsageError, match="fused already"):
        pair.convert(folder, "fused", tmp_path / "again")


def test_factors_keep_their_dtype_and_become_float32_where_scalings_differ(
    pair: Pair, tmp_path: Path
) -> None:
    folder = pair.trained("split", tmp_path / "own", rank=2)
    state = load_file(folder / WEIGHTS_FILE)
    save_file({k: v.bfloat16() for k, v in state.items()}, folder / WEIGHTS_FILE)
    pair.convert(folder, "fused", tmp_path / "alike")
    rewrite(folder, alpha_pattern={"v_proj": 3})
    pair.convert(folder, "fused", tmp_path / "folded")
    alike, folded = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("alike", "folded"))
    assert {tensor.dtype for tensor in alike.values()} == {torch.bfloat16}
    key = f"{PREFIX}{ATTENTION}.qkv_proj.lora_B.weight"
    own = state[f"{PREFIX}{ATTENTION}.v_proj.lora_B.weight"].bfloat16().double()
    assert torch.equal(folded[key][96:, 4:], (own * 1.5).float())
