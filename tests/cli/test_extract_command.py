"""`adapterhub extract`: from a fine-tuned model to an adapter that can be verified."""

from __future__ import annotations

import subprocess

import pytest

from tests.command_line import SCRIPT, CommandLine

pytestmark = pytest.mark.models
TWO_MODELS = """
import sys
from pathlib import Path
import torch
from adapterhub.models.quiet import quiet
from adapterhub.testing.tiny import tiny_model, write_tiny
place = Path(sys.argv[1])
write_tiny("llama", place / "base")
model = tiny_model("llama")
torch.manual_seed(1)
with torch.no_grad(), quiet():
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "v_proj" in name or name == "model.norm.weight":
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(place / "tuned")
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TWO_MODELS, str(place)], env=run.environment, check=True)
    return run


def test_the_worst_layers_and_what_is_left_out_are_shown(machine: CommandLine) -> None:
    done = machine.ok("extract", "base", "tuned", "-o", "shown", "--rank", "8")
    assert done.out.startswith("shown   4 layers, rank 8 · ")
    assert "relative error 0." in done.out
    assert "model.layers.1.self_attn.v_proj" in done.out
    assert "10 layers do not differ and were left out" in done.out
    assert "note: these differ and are not in the adapter:" in done.err
    assert "note:   model.norm.weight, by " in done.err
    assert done.err.splitlines()[-1] == "next: adapterhub verify shown"


def test_every_figure_is_in_the_document_and_the_adapter_is_good(machine: CommandLine) -> None:
    told = machine.ok("extract", "base", "tuned", "-o", "told", "--rank", "64", "--json").json
    assert (told["folder"], told["base"]["id"], told["unchanged"]) == ("told", "base", 10)
    assert len(told["modules"]) == 4
    assert told["error"] < 1e-6
    assert {module["rank"] for module in told["modules"]} == {32, 64}
    assert [left["parameter"] for left in told["left_out"]] == ["model.norm.weight"]
    report = machine.ok("verify", "./told", "--json").json
    assert (report["ok"], report["problems"]) == (True, [])
    assert "tuned model: tuned" in machine.ok("tree", "./told").out


def test_what_cannot_be_done_is_said_in_two_lines(machine: CommandLine) -> None:
    done = machine("extract", "base", "base", "-o", "never")
    assert done.code == 5
    assert done.complaint == [
        "base and base hold the same weights", "check that both names are right"
    ]  # fmt: skip


def test_what_it_does_to_a_base_that_is_here_is_recorded(machine: CommandLine) -> None:
    machine.ok("base", "add", "stored", "base", "--scheme", "bf16")
    machine.ok("extract", "stored", "tuned", "-o", "probed", "--rank", "8")
    report = machine.ok("verify", "./probed", "--base", "stored", "--json").json
    assert report["ok"]
    assert report["facts"]["probe_cosine"] > 0.99


def test_a_base_that_is_not_here_is_not_asked(machine: CommandLine) -> None:
    assert "probe" not in machine.ok("extract", "base", "tuned", "-o", "alone").err
