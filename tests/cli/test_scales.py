"""`--scale`: some modules of an adapter weigh more than others, wherever adapters are named."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.command_line import SCRIPT, CommandLine

pytestmark = pytest.mark.models

TINY = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.bases import add_base, find_base
from adapterhub.models.loader import load_base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import write_tiny
place = Path(sys.argv[1])
add_base("tiny", str(write_tiny("llama", place / "tiny")), scheme_by_name("nf4"))
base = load_base(find_base("tiny"), device="cpu")
made = (
    ("one", "lora", {"rank": 2}), ("two", "lora", {"rank": 2}), ("soft", "prompt_tuning", {}),
    ("keys", "ia3", {}),
)
for seed, (name, method, options) in enumerate(made):
    config = method_of(method).new_config(base.spec, options)
    rack = Rack(base)
    adapter = rack.attach_fresh("made", method, config, seed=seed)
    shake(adapter, seed=seed, size=0.05)
    (place / name).mkdir()
    (place / name / "adapter_config.json").write_bytes(encode_config(config))
    save_file(adapter.state(), place / name / "adapter_model.safetensors", {"format": "pt"})
    rack.detach("made")
"""
HALF = ("--scale", "./one:layers.0=0.5", "--scale", "./one:mlp=0")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base in 4 bits, two LoRAs and a soft prompt for it, and rows."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place)], env=run.environment, check=True)
    rows = [{"prompt": f"word {i}", "completion": f"{i} drow"} for i in range(4)]
    (place / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


def place_of(machine: CommandLine) -> Path:
    assert machine.cwd is not None
    return machine.cwd


def test_a_rehearsal_says_what_weighs_what(machine: CommandLine) -> None:
    words = ("stack", "./one*0.8", "./two", *HALF, "--dry-run")
    line = next(x for x in machine.ok(*words).out.splitlines() if x.startswith("scaled"))
    assert line == ("scaled    ./one: layers.0 x 0.5, mlp x 0: 0.4 in 4 modules, 0.8 in 4 modules")
    told = machine.ok(*words, "--json").json
    assert told["members"][0]["scales"] == {"layers.0": 0.5, "mlp": 0.0}
    assert told["weights"]["model.layers.0.self_attn.q_proj"] == {"./one": 0.4, "./two": 1.0}
    assert told["weights"]["model.layers.1.mlp.up_proj"] == {"./two": 1.0}


def test_what_is_written_down_is_rebuilt_to_the_same_bytes(machine: CommandLine) -> None:
    place = place_of(machine)
    machine.ok("stack", "./one", "./two", *HALF, "--strategy", "ties", "-o", "half.toml")
    written = tomllib.loads((place / "half.toml").read_text())
    assert written["terms"][0]["scales"] == {"layers.0": 0.5, "mlp": 0.0}
    assert "scales" not in written["terms"][1]
    machine.ok("stack", "--from", "half.toml", "-o", "again.toml")
    assert (place / "again.toml").read_bytes() == (place / "half.toml").read_bytes()
    machine.ok("stack", "./one", "./two", *HALF, "--strategy", "ties", "-o", "direct")
    machine.ok("stack", "--from", "again.toml", "-o", "rebuilt")
    weights = [place / name / "adapter_model.safetensors" for name in ("direct", "rebuilt")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "layers.0 x 0.5, mlp x 0" in machine.ok("tree", "direct").out
    assert "1 * ./one, layers.0 x 0.5, mlp x 0" in machine.ok("show", "direct").out
    changed = machine.ok("diff", "direct", "./two", "--json").json
    assert any("scales" in row["key"] or "parents" in row["key"] for row in changed["manifest"])


def test_compat_goes_on_with_the_scales(machine: CommandLine) -> None:
    machine.ok("stack", "./one", "./two", *HALF, "-o", "pair.toml")
    done = machine.ok("compat", "pair.toml", "--json")
    assert done.json["adapters"][0]["scales"] == {"layers.0": 0.5, "mlp": 0.0}
    words = shlex.split(done.json["advice"]["command"])
    asked = [words[i + 1].rpartition(":")[2] for i, word in enumerate(words) if word == "--scale"]
    assert asked == ["layers.0=0.5", "mlp=0.0"]
    assert "is scaled: layers.0 x 0.5, mlp x 0" in machine.ok("compat", "pair.toml").out
    rehearsed = machine.ok(*words[1:], "--dry-run", "--json").json
    assert rehearsed["members"][0]["scales"] == {"layers.0": 0.5, "mlp": 0.0}


def test_eval_and_run_weigh_the_modules_of_what_is_attached(machine: CommandLine) -> None:
    def perplexity(*words: str) -> tuple[str, float]:
        task = ("--task", "rows.jsonl", "--base", "tiny", "--json")
        rows = machine.ok("eval", *words, *task).json["rows"]
        (row,) = [row for row in rows if row["metric"] == "perplexity"]
        return row["adapter"], row["score"]

    machine.ok("stack", "./one", *HALF, "-o", "part.toml")
    machine.ok("stack", "./one", *HALF, "-o", "part")
    name, scaled = perplexity("./one", *HALF)
    assert name == "./one (./one: layers.0 x 0.5, mlp x 0)"
    assert perplexity("part.toml")[1] == pytest.approx(scaled, rel=1e-6)
    assert perplexity("part")[1] == pytest.approx(scaled, rel=1e-4)
    assert perplexity("./one")[1] != pytest.approx(scaled, rel=1e-3)
    words = ("--base", "tiny", "--max-new-tokens", "2")
    done = machine.ok("run", "./one+0.5*./two", "abc", *HALF, *words)
    assert "note: ./one is scaled: layers.0 x 0.5, mlp x 0; 6 of 14 modules" in done.err


def test_scales_that_a_file_cannot_tell_are_checked_on_the_base(machine: CommandLine) -> None:
    words = ("stack", "./one", "./keys", "-o", "keys.toml", "--overwrite")
    assert "note:" not in machine.ok(*words).err
    done = machine.ok(*words, "--scale", "./keys:k_proj=0")
    assert "note: which modules ./keys changes is known on a base alone" in done.err
    assert (
        "note: which" not in machine.ok(*words, "--scale", "./keys:k_proj=0", "--base", "tiny").err
    )
    done = machine(*words, "--scale", "./keys:o_proj=0", "--base", "tiny")
    assert (done.code, done.complaint[0]) == (2, "o_proj is about no module of ./keys")


def test_merge_folds_modules_in_at_their_weights(machine: CommandLine) -> None:
    words = ("--base", "tiny", "--into", "float32", "--no-measure")
    machine.ok("merge", "./one", *HALF, *words, "-o", "model")
    manifest = json.loads((place_of(machine) / "model" / "adapterhub.json").read_text())
    assert manifest["parents"][0]["scales"] == {"layers.0": 0.5, "mlp": 0.0}


def test_a_search_keeps_what_is_scaled(machine: CommandLine) -> None:
    words = ("--search-weights", "--base", "tiny", "--task", "rows.jsonl", "--trials", "2")
    machine.ok("stack", "./one", "./two", *HALF, *words, "-o", "found.toml")
    terms = tomllib.loads((place_of(machine) / "found.toml").read_text())["terms"]
    assert [t.get("scales") for t in terms if t["ref"].endswith("one")] == [
        {"layers.0": 0.5, "mlp": 0.0}
    ]


@pytest.mark.parametrize(
    ("words", "code", "fact", "hint"),
    [
        (("./onn:mlp=0",), 2, "./onn is not among the adapters named", "did you mean ./one?"),
        (("acme/x:mlp=0",), 2, "acme/x is not among the adapters", "name one of ./one, ./two"),
        (("mlp=0",), 2, "--scale mlp=0 is not REF:PATTERN=FACTOR", "such as --scale"),
        (("./one:mlp",), 2, "--scale ./one:mlp is not REF:PATTERN=FACTOR", "such as --scale"),
        (("./one:mlp=half",), 2, "is not REF:PATTERN=FACTOR", "such as --scale"),
        (("./one:=1",), 2, "is not REF:PATTERN=FACTOR", "such as --scale"),
        (("./one:mlp=nan",), 2, "the factor nan of mlp is of no use", "factors are finite"),
        (("./one:mlp=1e4",), 2, "the factor 10000 of mlp is of no use", "at most 1000"),
        (("./one:ml p=0",), 2, "'ml p' is no pattern of modules", "a pattern is a part of"),
        (("./one:mlp=1", "./one:mlp=2"), 2, "mlp of ./one is scaled twice", "one factor"),
        (("./one:mpl=0",), 2, "mpl is about no module of ./one", "did you mean mlp?"),
        (("./one:layers.2-8=0",), 2, "layers.2-8 is about no module", "in layers 0 to 1"),
        (("./one:*=0",), 2, "every module of ./one is scaled by 0", "leave ./one out"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(
    machine: CommandLine, words: tuple[str, ...], code: int, fact: str, hint: str
) -> None:
    asked = [piece for word in words for piece in ("--scale", word)]
    done = machine("stack", "./one", "./two", *asked, "-o", "never.toml")
    assert done.code == code
    assert fact in done.complaint[0]
    assert hint in done.complaint[1]
    assert not (place_of(machine) / "never.toml").exists()


def test_a_prompt_and_a_stored_composition_have_no_scales_to_give(machine: CommandLine) -> None:
    done = machine("stack", "./one", "./soft", "--scale", "./soft:mlp=0", "-o", "never.toml")
    assert done.code == 10
    assert done.complaint[0].startswith(
        "./soft is a prompt_tuning adapter, and prompt_tuning gives"
    )
    machine.ok("stack", "./one", "-o", "whole.toml")
    done = machine("stack", "--from", "whole.toml", "--scale", "whole.toml:mlp=0")
    assert (done.code, done.complaint[0]) == (2, "--from whole.toml says everything itself")
