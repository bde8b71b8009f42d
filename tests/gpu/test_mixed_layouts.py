"""An adapter made on a split Phi-3 and one made on the fused one, together on a fused Phi-3 in NF4:
attached and merged, against the deltas added to the dense weights.

On CUDA with Phi-3-mini's widths, `ADAPTERHUB_GPU_LAYERS` of them; on a CPU at a tiny size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.engines import ScoreRequest, Slots
from adapterhub.domain.evaluation import Message
from adapterhub.domain.match import record_of
from adapterhub.formats.adapter_config import encode_config
from adapterhub.hub.folder import read_folder
from adapterhub.plugin.catalog import catalog

torch = pytest.importorskip("torch")
from safetensors.torch import save_file

from adapterhub.compose.convert import convert_layout
from adapterhub.compose.executor import merge
from adapterhub.compose.members import Member, open_member, outline
from adapterhub.compose.plan import make_plan
from adapterhub.models.loader import Base
from adapterhub.runtime.engine import open_engine
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models
CUDA = torch.cuda.is_available()
RANK, WEIGHTS = 8, (1.0, 0.5)
REQUEST = (Message(role="user", content="say 5"),), "number 5 and then number 6"


@dataclass(frozen=True)
class Ground:
    """The base, both adapters as members for it, and each one's dense deltas by fused module."""

    base: Base
    members: tuple[Member, Member]
    deltas: Mapping[str, Any]


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("adapters")
    base: Base = (
        request.getfixturevalue("base")
        if CUDA
        else add_tiny_base("phi3", "nf4", request.getfixturevalue("home"))
    )
    fused, split = {}, {}
    deltas: dict[str, Any] = {}
    draw = torch.Generator().manual_seed(3)
    for module, site in base.sites("linear").items():
        out, width = site.shape
        A, B = factors(out, width, draw)
        fused[module] = A, B
        deltas[module] = WEIGHTS[0] * B @ A
        if module.endswith("lm_head"):
            continue
        parts = site.sections or {module.rpartition(".")[2]: (0, out)}
        rows = torch.zeros(out, width)
        for leaf, (first, end) in parts.items():
            A, B = factors(end - first, width, draw)
            split[f"{module.rpartition('.')[0]}.{leaf}"] = A, B
            rows[first:end] = B @ A
        deltas[module] += WEIGHTS[1] * rows
    one = member(write(folder / "fused", fused, base), WEIGHTS[0])
    # Made for a base in the other layout, it is carried over first.
    other = member(write(folder / "split", split, base), 1.0)
    convert_layout(
        other, folder / "converted", layout="fused", base=record_of(base.spec), wide_queries=True
    )
    return Ground(base, (one, member(folder / "converted", WEIGHTS[1])), deltas)


def factors(out: int, width: int, draw: Any) -> tuple[Any, Any]:
    A = torch.randn(RANK, width, generator=draw) / math.sqrt(width)
    return A, torch.randn(out, RANK, generator=draw) / math.sqrt(width)


def write(folder: Path, pairs: Mapping[str, tuple[Any, Any]], base: Base) -> Path:
    folder.mkdir()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.spec.id,
        "r": RANK, "lora_alpha": RANK,
        "target_modules": sorted({name.rpartition(".")[2] for name in pairs}),
    }  # fmt: skip
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    state = {}
    for module, (A, B) in pairs.items():
        state[f"base_model.model.{module}.lora_A.weight"] = A
        state[f"base_model.model.{module}.lora_B.weight"] = B
    save_file(state, folder / "adapter_model.safetensors")
    return folder


def member(folder: Path, weight: float) -> Member:
    return open_member(str(folder), read_folder(folder), weight=weight)


def logits(ground: Ground, *folders: tuple[Path, float]) -> Any:
    engine = open_engine(ground.base)
    slots: Slots = tuple((folder.name, weight) for folder, weight in folders)
    for folder, _ in folders:
        engine.rack.attach(folder.name, read_folder(folder))
    request = ScoreRequest(messages=REQUEST[0], answer=REQUEST[1], slots=slots, logits=True)
    found = engine.score([request])[0].logits.float().cpu()
    for folder, _ in folders:
        engine.rack.detach(folder.name)
    return found


@pytest.fixture(scope="module")
def wanted(ground: Ground) -> Mapping[Any, Any]:
    """Logits of a plain transformers model whose weights are the dequantized ones and the deltas,
    by dtype; None without the deltas."""
    from transformers import AutoModelForCausalLM

    base = ground.base
    device = "cuda" if CUDA else "cpu"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base.model.config, dtype=torch.float32)
    model = model.to_empty(device=device).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(base.model.config).to(device)
    dense = {f"{name}.weight": site.weight() for name, site in base.sites("linear").items()}
    own = {name: value for name, value in base.model.state_dict().items() if name not in dense}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(dense.get(name, own.get(name)))
    prompt = base.chat.prompt_ids(REQUEST[0])
    answer = base.chat.answer_ids(*REQUEST)
    ids = torch.tensor([[*prompt, *answer]], device=device)

    def heard() -> Any:
        with torch.inference_mode():
            out = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
        return out[len(prompt) - 1 : -1]

    found: dict[Any, Any] = {None: heard()}
    with torch.no_grad():
        for name, delta in ground.deltas.items():
            model.get_submodule(name).weight += delta.to(device)
    found[torch.float32] = heard()
    model.to(torch.bfloat16)
    found[torch.bfloat16] = heard()
    return found


@pytest.mark.parametrize("how", ["attached", "linear", "svd"])
def test_both_layouts_together_answer_as_the_dense_sum(
    how: str, ground: Ground, wanted: Mapping[Any, Any], tmp_path: Path
) -> None:
    folders = [(member.folder.path, member.weight) for member in ground.members]
    if how != "attached":
        outlines = [outline(member) for member in ground.members]
        plan = make_plan(
            outlines,
            strategy=catalog().strategies[how],
            rank=None if how == "linear" else 4 * RANK,
        )
        result = merge(ground.members, plan, tmp_path / how, device="cuda" if CUDA else "cpu")
        assert result.relative_error < 1e-6
        folders = [(tmp_path / how, 1.0)]
    found, exact = logits(ground, *folders), wanted[torch.float32]
    effect = (exact - wanted[None]).norm() / wanted[None].norm()
    error = (found - exact).norm() / exact.norm()
    rounding = (wanted[torch.bfloat16] - exact).norm() / exact.norm()
    print(
        f"{how}: effect {effect:.3g}, off by {error:.2g}; the dense sum in bfloat16 {rounding:.2g}"
    )
    assert effect > 5 * rounding
    assert error <= (1.5 * rounding if CUDA else 1e-5)
