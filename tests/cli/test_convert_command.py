"""`adapterhub convert`: an adapter that others cannot read becomes one that they can."""

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
from adapterhub.testing.tiny import tiny_model, write_tokenizer
sys.path.insert(0, sys.argv[2])
from tests.plugins.plain_peft import write_folder
from tests.split_twin import split_twin
place = Path(sys.argv[1])
fused = tiny_model("phi3")
models = {"fused": fused, "split": split_twin(fused), "other": tiny_model("mistral", seed=5)}
for name, model in models.items():
    with quiet():
        model.save_pretrained(write_tokenizer(place / "sources" / name))
    add_base(name, str(place / "sources" / name), scheme_by_name("bf16"))
for base, options in (("fused", {}), ("split", {"dora": True}), ("split", {"rslora": True})):
    loaded = load_base(find_base(base), device="cpu")
    made = method_of("lora")
    adapter = made.attach(loaded, "t", made.new_config(loaded.spec, {"rank": 2, **options}))
    shake(adapter)
    write_folder(adapter, place / "-".join((base, *options)))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> CommandLine:
    """Both layouts of one base, another one, and adapters for them."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    words = [str(SCRIPT.with_name("python")), "-c", MACHINE, str(place), str(pytestconfig.rootpath)]
    subprocess.run(words, env=run.environment, check=True)
    return run


def test_a_layout_is_told_by_its_layers_and_verified_on_its_base(machine: CommandLine) -> None:
    words = ("./fused", "-o", "apart", "--layout", "split", "--base", "split")
    done = machine.ok("convert", *words)
    assert done.out.splitlines() == [
        "apart   split, rank 2 · exact · 4 layers as they were",
        "  2 x gate_up_proj -> gate_proj+up_proj, rank 2",
        "  2 x qkv_proj -> q_proj+k_proj+v_proj, rank 2",
    ]
    assert done.err.splitlines()[-1] == "next: adapterhub verify apart"
    assert machine.ok("verify", "./apart", "--base", "split", "--json").json["ok"]
    told = machine.ok("convert", *words, "--overwrite", "--json").json
    assert (told["layout"], told["rank"], told["kept"]) == ("split", 2, 4)
    assert len(told["changes"]) == 4


def test_without_a_base_of_its_layout_its_base_is_named_by_id_alone(machine: CommandLine) -> None:
    done = machine.ok("convert", "./fused", "-o", "by-id", "--layout", "split")
    assert "note: fused stores its layers fused, so the manifest names the base by id" in done.err
    manifest = machine.ok("show", "./by-id", "--json").json["manifest"]
    assert (manifest["base"]["id"], manifest["base"].get("fingerprint")) == ("fused", None)


def test_a_dora_is_cut_to_a_rank_with_the_error_said(machine: CommandLine) -> None:
    done = machine("convert", "./split-dora", "-o", "never", "--canonical")
    assert done.code == 10
    assert "DoRA" in done.complaint[0]
    assert "--rank R" in done.complaint[1]
    words = ("convert", "./split-dora", "-o", "cut", "--canonical", "--rank", "4")
    done = machine.ok(*words, "--device", "cpu")
    assert done.out.startswith("cut   14 layers, rank 4, scaling 1 · relative error 0.")
    told = machine.ok(*words, "--overwrite", "--device", "cpu", "--json").json
    assert 0 < told["error"] < 1
    assert len(told["modules"]) == 14
    assert machine.ok("verify", "./cut", "--base", "split", "--json").json["ok"]


def test_rslora_becomes_plain(machine: CommandLine) -> None:
    done = machine.ok("convert", "./split-rslora", "-o", "plain", "--canonical")
    assert done.out == "plain   14 layers, rank 2, scaling 1 · exact\n"
    assert machine.ok("verify", "./plain", "--json").json["facts"]["scaling"] == 1


REFUSED = {
    "nothing asked": ([], "convert to what?"),
    "both asked": (["--layout", "fused", "--canonical"], "two steps"),
    "rank": (["--layout", "split", "--rank", "2"], "--rank is for --canonical"),
    "family": (["--canonical", "--family", "phi3"], "--family is for --layout"),
    "not a dora": (["--canonical", "--rank", "2"], "no DoRA"),
    "already": (["--layout", "fused", "--base", "fused"], "fused already"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_said_in_two_lines(machine: CommandLine, case: str) -> None:
    words, fact = REFUSED[case]
    done = machine("convert", "./fused", "-o", "never", *words)
    assert done.code == 2
    assert fact in done.complaint[0]
    assert len(done.complaint) == 2


def test_weights_of_another_model_are_refused_unless_allowed(machine: CommandLine) -> None:
    machine.ok("convert", "./fused", "-o", "split-own", "--layout", "split", "--base", "split")
    words = ("./split-own", "-o", "wrong", "--layout", "fused", "--base")
    done = machine("convert", *words, "other")
    assert done.code == 5
    assert "the norms of other are others" in done.complaint[0]
    machine.ok("convert", *words, "other", "--allow", "wrong-base")
    told = machine.ok("show", "./wrong", "--json").json["manifest"]
    assert told["allowed"] == ["wrong-base"]
