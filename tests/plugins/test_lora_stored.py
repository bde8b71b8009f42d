"""Every kind of LoRA as a folder: `verify` finds it good, plain peft loads it, faults are found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.manifest import CONFIG_FILE, WEIGHTS_FILE
from adapterhub.formats.adapter_config import encode_config
from adapterhub.hub.verify import verify_folder
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapterhub_plugins.peft.lora import Lora  # noqa: E402

pytestmark = [
    pytest.mark.models,
    # peft 0.21 asks transformers 5.23 for an attribute that was renamed; neither is ours.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # A tiny base lies in a folder of another name than its source.
    pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path:UserWarning"),
]
KINDS: list[dict[str, Any]] = [
    {"dora": True},
    {"dora": True, "rslora": True, "init": "orthogonal", "targets": ["q_proj", "down_proj"]},
    {"init": "pissa", "rslora": True, "rank_pattern": {"q_proj": 2}},
    {"init": "orthogonal", "layers": [1]},
    {"rank_pattern": {r"layers\.0\..*": 2}, "alpha_pattern": {"v_proj": 3}, "layers": "0-1"},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def write(home: Path, out: Path, options: dict[str, Any]) -> tuple[Any, Any]:
    """A trained adapter as a folder, the bare model, and the logits with the adapter."""
    from safetensors.torch import save_file

    base = add_tiny_base("llama", "bf16", home)
    bare = copy.deepcopy(base.model)
    adapter = Lora().attach(base, "one", Lora().new_config(base.spec, {"rank": 4, **options}))
    practice.shake(adapter)
    adapter.activate()
    out.mkdir()
    (out / CONFIG_FILE).write_bytes(encode_config(adapter.config))
    save_file(adapter.state(), out / WEIGHTS_FILE, metadata={"format": "pt"})
    return bare, plain.logits_of(base.model)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_it_is_found_good_and_plain_peft_loads_it(
    home: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    bare, logits = write(home, tmp_path / "stored", options)
    report = verify_folder(tmp_path / "stored")
    assert (report.ok, report.problems) == (True, ())
    model = peft.PeftModel.from_pretrained(bare, tmp_path / "stored")
    torch.testing.assert_close(plain.logits_of(model), logits)


def lose(part: str) -> Callable[[dict[str, Any]], None]:
    def spoil(state: dict[str, Any]) -> None:
        del state[next(name for name in state if part in name)]

    return spoil


def lose_a_layer(state: dict[str, Any]) -> None:
    for name in [name for name in state if ".layers.1." in name]:
        del state[name]


def widen_one(state: dict[str, Any]) -> None:
    name = next(name for name in state if "lora_A" in name)
    state[name] = torch.cat([state[name], state[name]])


@pytest.mark.parametrize(
    ("options", "spoil", "code"),
    [
        ({"dora": True}, lose("magnitude"), "missing-tensor"),
        ({"dora": True}, lose("lora_A"), "unpaired-tensor"),
        ({"init": "pissa"}, widen_one, "rank-mismatch"),
        ({"layers": "0,1", "targets": ["q_proj"]}, lose_a_layer, "target-without-weights"),
    ],
    ids=["no magnitude", "no A", "wrong rank", "no layer"],
)
def test_a_fault_is_found(
    home: Path, tmp_path: Path, options: dict[str, Any], spoil: Any, code: str
) -> None:
    from safetensors.torch import load_file, save_file

    write(home, tmp_path / "stored", options)
    file = tmp_path / "stored" / WEIGHTS_FILE
    state = load_file(file)
    spoil(state)
    save_file(state, file, metadata={"format": "pt"})
    assert code in {problem.code for problem in verify_folder(tmp_path / "stored").problems}


@pytest.mark.parametrize("pattern", [None, "layers", ["blocks", "layers"]], ids=str)
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.experts.0.w1", "model.layers.0.mlp.w1", "layers.1.w1", "w1"]
)
def test_which_block_a_layer_is_in_is_pefts_own_rule(name: str, pattern: Any) -> None:
    from peft.tuners.tuners_utils import check_target_module_exists

    from adapterhub.hub.lora_names import is_target

    settings = {"target_modules": ["w1"], "layers_to_transform": [1], "layers_pattern": pattern}
    config = peft.LoraConfig(**settings)
    assert is_target(name, settings) == bool(check_target_module_exists(config, name))
