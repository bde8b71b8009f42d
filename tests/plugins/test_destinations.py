"""Promises of the rules of servers and formats: each fault is named, a plain LoRA passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.destination import Finding
from adapterhub.hub.adapter_facts import read_facts
from adapterhub.hub.folder import read_folder
from adapterhub.plugin.catalog import catalog, load_target
from tests.adapter_files import MODULES, PREFIX, f32, lora_tensors, write_lora

TARGETS = [entry.record.name for entry in catalog().destinations]
MAGNITUDE = {f"{PREFIX}{module}.lora_magnitude_vector": f32((8,)) for module in MODULES}
HEAD = {f"{PREFIX}lm_head.weight": f32((8, 8))}
UNEVEN = lora_tensors(2, (MODULES[0],)) | lora_tensors(4, (MODULES[1],))
SAVED = {"modules_to_save": ["lm_head"]}
FUSED = ("model.layers.0.self_attn.qkv_proj",)


def check(folder: Path, target: str, *, family: str | None = "llama") -> dict[str, Finding]:
    facts = read_facts(read_folder(folder), name="mine", family=family)
    rules = load_target(catalog().destinations[target].target)()
    found = list(rules.check(facts))
    assert len({finding.rule for finding in found}) == len(found)
    return {finding.rule: finding for finding in found}


@pytest.mark.parametrize("target", TARGETS)
def test_a_plain_lora_goes_everywhere(tmp_path: Path, target: str) -> None:
    found = check(write_lora(tmp_path / "plain"), target)
    assert all(finding.severity != "error" for finding in found.values())
    assert all(finding.fix for finding in found.values() if finding.severity == "warning")


@pytest.mark.parametrize(
    ("target", "changes", "tensors", "verdict"),
    [
        ("vllm", {"r": 32}, lora_tensors(32), ("rank", "warning")),
        ("vllm", {"r": 600}, lora_tensors(600), ("rank", "error")),
        ("vllm", {"use_dora": True}, lora_tensors() | MAGNITUDE, ("dora", "error")),
        ("vllm", SAVED, lora_tensors() | HEAD, ("whole layers", "error")),
        ("vllm", {"bias": "lora_only"}, lora_tensors(), ("bias", "error")),
        ("vllm", {"use_rslora": True}, lora_tensors(), ("rslora", "ok")),
        ("vllm", {"rank_pattern": {"layers.1.self_attn.q_proj": 4}}, UNEVEN, ("patterns", "error")),
        ("vllm", {"trainable_token_indices": [1, 2]}, lora_tensors(), ("added tokens", "warning")),
        ("vllm", {"alora_invocation_tokens": [1]}, lora_tensors(), ("variant", "error")),
        ("vllm", {"target_modules": ["qkv_proj"]}, lora_tensors(2, FUSED), ("layout", "error")),
        ("sglang", {"use_rslora": True}, lora_tensors(), ("rslora", "error")),
        ("sglang", {"alpha_pattern": {"q_proj": 8}}, lora_tensors(), ("patterns", "error")),
        ("sglang", {"use_dora": True}, lora_tensors() | MAGNITUDE, ("dora", "error")),
        ("lorax", {"use_rslora": True}, lora_tensors(), ("rslora", "ok")),
        ("lorax", {"r": 256}, lora_tensors(256), ("rank", "warning")),
        ("lorax", {"rank_pattern": {"layers.1.self_attn.q_proj": 4}}, UNEVEN, ("blocks", "error")),
        ("llama.cpp", {"use_rslora": True}, lora_tensors(), ("scaling", "ok")),
        ("llama.cpp", {"use_dora": True}, lora_tensors() | MAGNITUDE, ("dora", "error")),
        ("llama.cpp", SAVED, lora_tensors() | HEAD, ("whole layers", "error")),
        ("ollama", {"use_rslora": True}, lora_tensors(), ("format", "warning")),
        ("mlx", {"use_dora": True}, lora_tensors() | MAGNITUDE, ("dora", "error")),
        ("peft", {"base_model_name_or_path": "tiny"}, lora_tensors(), ("base", "warning")),
    ],
)  # fmt: skip
def test_each_rule_names_what_goes_wrong(
    tmp_path: Path, target: str, changes: dict[str, Any], tensors: Any, verdict: tuple[str, str]
) -> None:
    rule, severity = verdict
    found = check(write_lora(tmp_path / "odd", tensors=tensors, **changes), target)
    assert found[rule].severity == severity
    assert (found[rule].fix is None) == (severity == "ok")


def test_a_rank_names_the_least_flag_that_admits_it(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "wide", tensors=lora_tensors(200), r=200)
    assert "--max-lora-rank 256" in str(check(folder, "vllm")["rank"].fix)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "peft"])
def test_another_method_is_refused_by_name_and_asked_nothing_else(
    tmp_path: Path, target: str
) -> None:
    config = {
        "peft_type": "IA3",
        "base_model_name_or_path": "acme/tiny",
        "target_modules": ["k_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    }
    folder = write_lora(tmp_path / "ia3", config=config)
    found = check(folder, target)
    assert list(found) == ["method"]
    assert found["method"].severity == "error"
    assert "ia3" in found["method"].reason


@pytest.mark.parametrize("target", ["vllm", "llama.cpp"])
def test_an_unknown_base_is_called_unknown(tmp_path: Path, target: str) -> None:
    found = check(write_lora(tmp_path / "plain"), target, family=None)
    assert found["layout"].severity == "warning"
    assert "unknown" in found["layout"].reason


def test_split_layers_on_a_fused_base_are_an_error(tmp_path: Path) -> None:
    finding = check(write_lora(tmp_path / "split"), "vllm", family="phi3")["layout"]
    assert finding.severity == "error"
    assert "--layout fused" in str(finding.fix)
