"""`adapterhub merge`: from adapters to a model that needs none, with what that lost beside it."""

from __future__ import annotations

import subprocess

import pytest

from tests.command_line import SCRIPT, CommandLine

pytestmark = pytest.mark.models
MACHINE = """
import sys
from pathlib import Path
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.models.bases import add_base, find_base
from adapterhub.models.loader import load_base
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import method_of
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import write_tiny
sys.path.insert(0, sys.argv[2])
from tests.plugins.plain_peft import write_folder
place = Path(sys.argv[1])
write_tiny("qwen2", place / "source")
with quiet():
    add_base("tiny", str(place / "source"), scheme_by_name("nf4"))
loaded = load_base(find_base("tiny"), device="cpu")
for name, method, options in (
    ("lora", "lora", {"rank": 2}), ("scales", "ia3", {}), ("prompt", "prompt_tuning", {})
):
    made = method_of(method)
    with quiet():
        adapter = made.attach(loaded, name, made.new_config(loaded.spec, options))
    shake(adapter, size=0.02)
    write_folder(adapter, place / name)
    adapter.detach()
(place / "rows.jsonl").write_text('{"prompt": "abc", "completion": "def"}\\n')
"""
PLAIN = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
assert not any(name.startswith("adapterhub") for name in sys.modules)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = AutoTokenizer.from_pretrained(sys.argv[1])("abc", return_tensors="pt")
print(model.dtype, tuple(model(**ids).logits.shape))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> CommandLine:
    """A base in 4 bits, and adapters for it."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place)
    words = [str(SCRIPT.with_name("python")), "-c", MACHINE, str(place), str(pytestconfig.rootpath)]
    subprocess.run(words, env=run.environment, check=True)
    return run


def test_a_merged_folder_needs_no_adapterhub_and_says_what_it_lost(machine: CommandLine) -> None:
    done = machine.ok("merge", "./lora+0.5*./scales", "-o", "plain", "--task", "./rows.jsonl")
    lines = done.out.splitlines()
    assert lines[0].startswith("plain   bf16 · ")
    assert lines[0].endswith(" tensors changed")
    assert lines[1].split() == ["form", "drift", "cosine", "strength", "perplexity,", "rows.jsonl"]
    assert [line.partition("  ")[0] for line in lines[2:]] == ["attached", "merged, bf16"]
    assert "note: tiny holds nf4 weights: what is merged is what these bits stand for" in done.err
    assert done.err.splitlines()[-1] == "next: adapterhub base add NAME plain"
    shown = machine.ok("show", "./plain").out
    assert "merged into its weights as they are in nf4" in shown
    assert "made by   merging (linear), stored as bf16 · adapterhub" in shown
    assert "effect    its card says what merging lost" in shown
    untrue = ("trained on", "stacking", "verify --base", "plugin")
    assert [words for words in untrue if words in shown] == []
    asked = machine("run", "./plain", "hello")
    assert (asked.code, asked.complaint) == (
        12,
        [
            "this is a whole model that adapters were merged into, and no adapter",
            "keep it as a base: adapterhub base add NAME FOLDER",
        ],
    )
    words = [str(SCRIPT.with_name("python")), "-c", PLAIN, "plain"]
    loaded = subprocess.run(
        words, cwd=machine.cwd, env=machine.environment, check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split(" ", 1) == ["torch.bfloat16", "(1, 3, 263)\n"]


def test_a_quantized_one_is_a_base_with_its_loss_in_the_document(machine: CommandLine) -> None:
    words = ("./lora", "--into", "nf4", "--lossy", "--name", "again")
    told = machine.ok("merge", *words, "--task", "./rows.jsonl", "--json").json
    assert [form["form"] for form in told["forms"]] == [
        "attached", "merged, bf16", "merged, then nf4"
    ]  # fmt: skip
    drifts = [form["drift"] for form in told["forms"]]
    assert 0 == drifts[0] < drifts[1] < drifts[2]
    assert (told["name"], told["base"], told["into"]) == ("again", "tiny", "nf4")
    assert [parent["ref"] for parent in told["parents"]] == ["./lora"]
    kept = machine.ok("base", "show", "again", "--json").json
    assert (kept["scheme"]["name"], kept["source"]) == ("nf4", "./lora merged into tiny")


def test_a_prompt_stays_attached(machine: CommandLine) -> None:
    done = machine("merge", "./prompt", "-o", "never", "--no-measure")
    assert done.code == 10
    assert done.complaint == [
        "./prompt is a prompt_tuning adapter, and what prompt_tuning does is no change of weights",
        "keep it attached, which is how run and eval have it; it cannot be merged",
    ]
    assert machine.cwd is not None
    assert not (machine.cwd / "never").exists()
