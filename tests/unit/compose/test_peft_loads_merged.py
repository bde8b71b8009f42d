"""What was merged is, for plain peft, the same function as both deltas added to the weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from adapterhub.plugin.catalog import catalog

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapterhub.compose.executor import merge  # noqa: E402
from adapterhub.compose.members import Member, open_member, outline  # noqa: E402
from adapterhub.compose.peft_config import lora_config  # noqa: E402
from adapterhub.compose.plan import make_plan  # noqa: E402
from adapterhub.domain.manifest import BaseRecord  # noqa: E402
from adapterhub.hub.folder import read_folder  # noqa: E402

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 11, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 32,
}  # fmt: skip


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES))


def phi3() -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    return Phi3ForCausalLM(Phi3Config(**SIZES, pad_token_id=0))


def trained(model: Any, folder: Path, *, seed: int, **options: Any) -> tuple[Path, dict[str, Any]]:
    """A LoRA with random factors saved by peft, and the deltas peft computes for it."""
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**options))
    torch.manual_seed(seed)
    deltas = {}
    for name, layer in wrapped.base_model.model.named_modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            torch.nn.init.normal_(A, std=0.2)
            torch.nn.init.normal_(B, std=0.2)
            deltas[name] = layer.scaling["default"] * B.detach().double() @ A.detach().double()
    wrapped.peft_config["default"].base_model_name_or_path = "acme/tiny"
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder, deltas


# Patterns that peft resolves in its own way, ranks that differ by module, modules only one has.
ONE: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 6,
    "rank_pattern": {"layers.1.mlp.down_proj": 2, r"layers\.10\..*": 3},
    "alpha_pattern": {"o_proj": 1},
}
TWO: dict[str, Any] = {
    "r": 3,
    "lora_alpha": 9,
    "use_rslora": True,
    "target_modules": ["o_proj"],
    "layers_to_transform": [1, 3],
}


@pytest.mark.parametrize(
    ("make", "targets"),
    [(llama, ["q_proj", "o_proj", "down_proj"]), (phi3, ["qkv_proj", "o_proj", "down_proj"])],
)
@pytest.mark.parametrize(("strategy", "rank"), [("linear", None), ("svd", 7)])
def test_the_merged_folder_gives_peft_the_logits_of_both_deltas_added_to_the_weights(
    tmp_path: Path, make: Any, targets: list[str], strategy: str, rank: int | None
) -> None:
    torch.manual_seed(0)
    base = make().eval()
    one, first = trained(base, tmp_path / "one", seed=1, target_modules=targets, **ONE)
    two, second = trained(base, tmp_path / "two", seed=2, **TWO)
    weights = {"one": 0.8, "two": -0.5}
    members = [
        open_member(path.name, read_folder(path), weight=weights[path.name]) for path in (one, two)
    ]
    merged = _merged(members, tmp_path / "merged", strategy, rank)

    base.double()
    expected = copy.deepcopy(base)
    for weight, deltas in ((0.8, first), (-0.5, second)):
        for name, delta in deltas.items():
            expected.get_submodule(name).weight.data += weight * delta
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), merged).eval()
    tokens = torch.randint(1, 64, (2, 9))
    with torch.no_grad():
        plain, wanted, got = (model(tokens).logits for model in (base, expected, loaded))
    assert float((wanted - plain).norm() / plain.norm()) > 0.1
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    bound = {
        name
        for name, layer in loaded.base_model.model.named_modules()
        if isinstance(layer, peft.tuners.lora.LoraLayer)
    }
    assert bound == first.keys() | second.keys()


def _merged(members: list[Member], out: Path, strategy: str, rank: int | None) -> Path:
    """Rank 7 holds every sum here, so that svd is exact too."""
    outlines = [outline(member) for member in members]
    plan = make_plan(outlines, strategy=catalog().strategies[strategy], rank=rank)
    return merge(members, plan, out).folder


def nested(depth: int) -> Any:
    """Modules called proj, inner.proj, inner.inner.proj, ..."""
    parts = {"proj": torch.nn.Linear(4, 4)} | ({"inner": nested(depth - 1)} if depth else {})
    return torch.nn.ModuleDict(parts)


def test_a_module_whose_name_ends_like_a_merged_one_keeps_its_own_rank() -> None:
    ranks = {"proj": 2, "inner.proj": 5, "inner.inner.proj": 3}
    config = lora_config(ranks, base=BaseRecord(id="acme/tiny"), configs=[])
    wrapped = peft.get_peft_model(
        nested(2), peft.LoraConfig(**{**config, "base_model_name_or_path": None})
    )
    layers = dict(wrapped.base_model.model.named_modules())
    assert {name: layers[name].r["default"] for name in ranks} == ranks
    assert {layers[name].scaling["default"] for name in ranks} == {1.0}
