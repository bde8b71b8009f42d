"""Promises of the exporters: what another reader makes of the files is what we compute.

GGUF is read back by transformers, which undoes llama.cpp's row order by code of its own; llama.cpp
itself is asked in tests/bench/llama_cpp.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import CapabilityError, UsageError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.hub.adapter_facts import read_facts
from adapterhub.hub.folder import read_folder
from adapterhub.models.bases import add_base
from adapterhub.models.export import export_adapter, export_base
from adapterhub.models.loader import Base, load_base
from adapterhub.plugin.catalog import catalog, load_target
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.plain import logits_of
from adapterhub.testing.practice import shake
from tests.unit.models.test_gguf import write_gguf

pytestmark = pytest.mark.models

PATTERNED = {
    "use_rslora": True,
    "rank_pattern": {"layers.0.self_attn.q_proj": 1, "down_proj": 4},
    "alpha_pattern": {"k_proj": 7.0},
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(tmp_path / "home"))
    spec = add_base("small", str(write_gguf(tmp_path / "small.gguf")), scheme_by_name("nf4"))
    return load_base(spec, device="cpu")


def write_adapter(base: Base, folder: Path, changes: dict[str, Any]) -> Path:
    config = method_of("lora").new_config(base.spec, {"rank": 2}) | changes
    from safetensors.torch import save_file

    rack = Rack(base)
    attached = rack.attach_fresh("made", "lora", config, seed=0)
    shake(attached)
    state = attached.state()
    rack.detach("made")
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    save_file(state, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


def export(base: Base, folder: Path, form: str, out: Path) -> list[str]:
    facts = read_facts(read_folder(folder), name=folder.name, family=base.spec.family)
    exporter = load_target(catalog().exporter_for(form).target)()
    return export_adapter(folder, facts, exporter, base.spec, out)[1]


def answer_with(base: Base, folder: Path) -> Any:
    rack = Rack(base)
    rack.attach("mine", read_folder(folder))
    rack.activate((("mine", 1.0),))
    answer = logits_of(base.model)
    rack.detach("mine")
    return answer


def read_back(path: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return logits_of(model.eval())


def test_a_base_in_gguf_is_the_base_that_runs_here(base: Base, tmp_path: Path) -> None:
    import torch

    exporter = load_target(catalog().exporter_for("gguf").target)()
    out = tmp_path / "out.gguf"
    export_base(base.spec, exporter, out)
    assert torch.equal(read_back(out), logits_of(base.model))


@pytest.mark.parametrize("changes", [{}, PATTERNED], ids=["plain", "patterned"])
def test_a_lora_in_gguf_does_what_it_does_here(
    base: Base, tmp_path: Path, changes: dict[str, Any]
) -> None:
    import gguf
    import torch

    folder = write_adapter(base, tmp_path / "mine", changes)
    notes = export(base, folder, "gguf", tmp_path / "mine.gguf")
    assert bool(notes) == bool(changes)
    exporter = load_target(catalog().exporter_for("gguf").target)()
    export_base(base.spec, exporter, tmp_path / "base.gguf")
    adapter = gguf.GGUFReader(tmp_path / "mine.gguf")
    fields = {key: field.contents() for key, field in adapter.fields.items()}
    assert fields["general.type"] == "adapter"
    assert (fields["general.architecture"], fields["adapter.type"]) == ("llama", "lora")
    parts = {tensor.name: tensor.data for tensor in adapter.tensors}
    merged = gguf.GGUFReader(tmp_path / "base.gguf", "r+")
    for tensor in merged.tensors:
        if f"{tensor.name}.lora_a" in parts:
            A, B = (parts[f"{tensor.name}.lora_{part}"] for part in "ab")
            tensor.data[:] += fields["adapter.lora.alpha"] / B.shape[1] * (B @ A)
    merged.data.flush()
    torch.testing.assert_close(
        read_back(tmp_path / "base.gguf"), answer_with(base, folder), atol=2e-5, rtol=1e-5
    )


def test_an_adapter_for_mlx_holds_the_same_deltas(base: Base, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = write_adapter(base, tmp_path / "mine", PATTERNED)
    export(base, folder, "mlx", tmp_path / "mlx")
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    assert config["fine_tune_type"] == "lora"
    assert config["num_layers"] == base.model.config.num_hidden_layers
    parameters = config["lora_parameters"]
    assert "self_attn.q_proj" in parameters["keys"]
    stored = load_file(tmp_path / "mlx" / "adapters.safetensors")
    facts = read_facts(read_folder(folder), name="mine")
    ours = load_file(folder / "adapter_model.safetensors")
    for module, low in facts.modules.items():
        a, b = stored[f"{module}.lora_a"], stored[f"{module}.lora_b"]
        assert a.shape[1] == b.shape[0] == parameters["rank"]
        A, B = (ours[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(parameters["scale"] * (a @ b).T, low.scaling * (B @ A))


def test_a_plain_peft_folder_names_what_stays_behind(base: Base, tmp_path: Path) -> None:
    folder = write_adapter(base, tmp_path / "mine", {})
    (folder / "recipe.toml").write_text("")
    [note] = export(base, folder, "peft", tmp_path / "peft")
    assert "recipe.toml" in note
    kept = ("adapter_config.json", "adapter_model.safetensors")
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == sorted(kept)
    assert all((tmp_path / "peft" / n).read_bytes() == (folder / n).read_bytes() for n in kept)


@pytest.mark.parametrize("form", ["gguf", "mlx"])
def test_dora_is_refused_and_leaves_nothing(base: Base, tmp_path: Path, form: str) -> None:
    folder = write_adapter(base, tmp_path / "dora", {"use_dora": True})
    with pytest.raises(CapabilityError, match="dora"):
        export(base, folder, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_what_is_there_is_not_overwritten(base: Base, tmp_path: Path) -> None:
    folder = write_adapter(base, tmp_path / "mine", {})
    (tmp_path / "out.gguf").write_text("precious")
    with pytest.raises(UsageError, match="already there"):
        export(base, folder, "gguf", tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_text() == "precious"
