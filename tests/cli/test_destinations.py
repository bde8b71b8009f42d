"""Promises of `lint` and `export` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapter_files import lora_tensors, write_lora
from tests.command_line import CommandLine


def test_lint_prints_every_rule_with_its_reason_and_fix(
    adapterhub: CommandLine, tmp_path: Path
) -> None:
    write_lora(tmp_path / "wide", tensors=lora_tensors(64), r=64)
    done = adapterhub.ok("lint", "./wide", "--target", "vllm")
    assert "fix: vllm serve acme/tiny --enable-lora --max-lora-rank 64" in done.out
    assert "rules of vLLM" in done.out


def test_lint_exits_12_for_an_error_and_0_for_warnings(
    adapterhub: CommandLine, tmp_path: Path
) -> None:
    write_lora(tmp_path / "rs", use_rslora=True)
    done = adapterhub("lint", "./rs", "--target", "sglang", "--json")
    assert (done.code, done.json["ok"]) == (12, False)
    assert "--canonical" in done.complaint[1]
    found = adapterhub.ok("lint", "./rs", "--target", "vllm", "--json").json
    assert (found["ok"], found["target"]) == (True, "vllm")
    assert {"rule", "severity", "reason", "fix"} == set(found["findings"][0])


@pytest.mark.parametrize(
    ("words", "code", "fact"),
    [
        (("lint", "./plain", "--target", "vlm"), 3, "no destination is called 'vlm'"),
        (("lint", "./nowhere", "--target", "vllm"), 3, "nowhere is not a folder"),
        (("export", "./plain", "--to", "onnx", "-o", "x"), 3,
         "nothing installed writes the format 'onnx'"),
        (("export", "./broken", "--to", "peft", "-o", "x"), 2, "./broken: "),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    adapterhub: CommandLine, tmp_path: Path, words: tuple[str, ...], code: int, fact: str
) -> None:
    write_lora(tmp_path / "plain")
    write_lora(tmp_path / "broken", r=3)
    done = adapterhub(*words)
    assert (done.code, fact in done.complaint[0]) == (code, True), done
    assert not (tmp_path / "x").exists()
