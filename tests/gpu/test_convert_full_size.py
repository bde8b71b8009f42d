"""A LoRA of one layout on a Phi-3 of the other, through plain peft and in float32.

On CUDA with Phi-3-mini's widths, `ADAPTERHUB_GPU_LAYERS` of them; on a CPU at a tiny size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.layout import Layout
from adapterhub.domain.manifest import BaseRecord
from adapterhub.hub.folder import read_folder
from tests.gpu.conftest import LAYERS
from tests.split_twin import split_twin

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapterhub.compose.convert import convert_layout
from adapterhub.compose.members import open_member

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path:UserWarning"),
]
CUDA = torch.cuda.is_available()
TINY = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TARGETS: dict[Layout, list[str]] = {
    "fused": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "split": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


@dataclass(frozen=True)
class Twins:
    """The same weights in both layouts, and some token ids."""

    models: dict[Layout, Any]
    ids: Any

    def logits(self, layout: Layout, adapter: Path | None = None) -> Any:
        model = self.models[layout]
        wrapped = model if adapter is None else peft.PeftModel.from_pretrained(model, adapter)
        with torch.inference_mode():
            found = wrapped.eval()(input_ids=self.ids, use_cache=False).logits.float()
        if adapter is not None:
            wrapped.unload()
        return found

    def trained(self, layout: Layout, folder: Path) -> Path:
        """A LoRA after a few real steps on the random ids."""
        torch.manual_seed(1)
        config = peft.LoraConfig(
            r=16, lora_alpha=32, target_modules=TARGETS[layout], task_type="CAUSAL_LM"
        )
        wrapped = peft.get_peft_model(self.models[layout], config)
        wrapped.peft_config["default"].base_model_name_or_path = "acme/phi3"
        optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=2e-3)
        for _ in range(3):
            loss = wrapped(input_ids=self.ids, labels=self.ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        wrapped.save_pretrained(folder, save_embedding_layers=False)
        wrapped.unload()
        return folder


@pytest.fixture(scope="module")
def twins() -> Twins:
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(num_hidden_layers=LAYERS, **({} if CUDA else TINY))
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        fused = Phi3ForCausalLM(config).eval()
        ids = torch.randint(3, config.vocab_size, (2, 48))
    return Twins({"fused": fused, "split": split_twin(fused)}, ids)


def test_the_two_layouts_are_one_model(twins: Twins) -> None:
    one, other = twins.logits("fused"), twins.logits("split")
    assert (one - other).abs().max() <= 1e-5 * one.abs().max()


@pytest.mark.parametrize(("layout", "to"), [("split", "fused"), ("fused", "split")])
def test_a_trained_lora_says_the_same_on_the_other_layout(
    twins: Twins, tmp_path: Path, layout: Layout, to: Layout
) -> None:
    own = twins.trained(layout, tmp_path / "own")
    made = convert_layout(
        open_member("acme/own", read_folder(own)),
        tmp_path / "other",
        layout=to,
        base=BaseRecord(id="acme/phi3"),
        wide_queries=True,
    )
    assert (len(made.changes), made.rank) == (2 * LAYERS, 48 if to == "fused" else 16)
    bare, wanted = twins.logits(to), twins.logits(layout, own)
    found = twins.logits(to, made.folder)
    effect, error = (wanted - bare).abs().max(), (found - wanted).abs().max()
    print(f"{layout} -> {to}: effect {effect:.3g}, difference {error:.3g}")
    assert effect > 1e-2
    assert error <= 1e-3 * effect
