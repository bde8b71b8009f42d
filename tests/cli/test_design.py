"""`adapterhub design`: a prompt is written, published, pulled, put together and chosen like any
other adapter."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest

from adapterhub.cli.output import Output
from adapterhub.formats.manifest import decode_manifest
from tests.command_line import SCRIPT, CommandLine

TINY = """
import sys
from pathlib import Path
from adapterhub.models.bases import add_base
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.testing.tiny import write_tiny
from adapterhub.formats.adapter_config import encode_config
from adapterhub.models.bases import find_base
from adapterhub.models.loader import load_base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.practice import shake
from safetensors.torch import save_file
place = Path(sys.argv[1])
add_base("tiny", str(write_tiny("llama", place / "tiny")), scheme_by_name("nf4"))
base = load_base(find_base("tiny"), device="cpu")
config = method_of("lora").new_config(base.spec, {"rank": 2})
adapter = Rack(base).attach_fresh("made", "lora", config, seed=0)
shake(adapter)
(place / "lora").mkdir()
(place / "lora" / "adapter_config.json").write_bytes(encode_config(config))
save_file(adapter.state(), place / "lora" / "adapter_model.safetensors", {"format": "pt"})
"""


@pytest.fixture
def designed(adapterhub: CommandLine, named_base: str, tmp_path: Path) -> Path:
    adapterhub.ok(
        "design", "-o", "mine", "--base", named_base, "--system", "Spell it backwards.",
        "--example", "dog => god", "--template", "Word: {prompt}",
    )  # fmt: skip
    return tmp_path / "mine"


# --- without a model --------------------------------------------------------------------------


def test_a_design_is_an_adapter_of_three_small_files(designed: Path) -> None:
    assert {path.name for path in designed.iterdir()} == {
        "adapter_config.json",
        "adapterhub.json",
        "README.md",
    }
    config = json.loads((designed / "adapter_config.json").read_text())
    assert config["examples"] == [{"prompt": "dog", "completion": "god"}]
    manifest = decode_manifest((designed / "adapterhub.json").read_bytes())
    assert (manifest.method, manifest.base.id) == ("prompt_design", "acme/tiny")


def test_a_design_is_published_pulled_and_shown(adapterhub: CommandLine, designed: Path) -> None:
    assert adapterhub.ok("verify", designed).out.splitlines()[0].endswith("no problem found")
    adapterhub.ok("push", designed, "me/mine")
    shown = adapterhub.ok("show", "me/mine", "--json").json
    assert shown["config"]["system"] == "Spell it backwards."
    assert "made by   design · adapterhub" in adapterhub.ok("show", "me/mine").out
    adapterhub.ok("pull", "me/mine")
    [listed] = adapterhub.ok("list", "--json").json
    assert listed["id"] == "me/mine"
    assert adapterhub.ok("verify", "me/mine", "--json").json["facts"]["method"] == "prompt_design"


def test_texts_and_examples_come_from_files(
    adapterhub: CommandLine, named_base: str, tmp_path: Path
) -> None:
    (tmp_path / "system.txt").write_text("안녕\n두 줄\n")
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = adapterhub.ok(
        "design", "-o", "mine", "--base", named_base, "--system", "@system.txt",
        "--examples", "rows.jsonl", "--json",
    )  # fmt: skip
    assert done.json["config"]["system"] == "안녕\n두 줄"
    assert done.json["config"]["examples"] == rows


@pytest.mark.parametrize(
    ("words", "code", "fact"),
    [
        ((), 5, "the prompt design is empty: it changes nothing"),
        (("--example", "dog"), 2, "'dog' is no example"),
        (("--template", "none"), 2, "the template has {prompt} 0 times, not once"),
        (("--system", "@nowhere.txt"), 2, "there is no file nowhere.txt"),
        (("--system", "S", "--choose", "2"), 2, "--choose needs rows to choose from"),
        (("--system", "S", "--data", "x.jsonl"), 2, "--data goes with --choose"),
        (("--system", "S", "--trials", "4"), 2, "--trials goes with --choose"),
    ],
)
def test_what_makes_no_sense_is_refused(
    adapterhub: CommandLine, named_base: str, words: tuple[str, ...], code: int, fact: str
) -> None:
    done = adapterhub("design", "-o", "mine", "--base", named_base, *words)
    assert (done.code, done.complaint[0]) == (code, fact)
    assert adapterhub.cwd is not None
    assert not (adapterhub.cwd / "mine").exists()


def test_a_design_is_not_overwritten_unasked(
    adapterhub: CommandLine, designed: Path, named_base: str
) -> None:
    words = ("design", "-o", str(designed), "--base", named_base, "--system", "S")
    assert adapterhub(*words).complaint[0].endswith("already holds an adapter")
    adapterhub.ok(*words, "--overwrite")
    assert "examples" not in json.loads((designed / "adapter_config.json").read_text())


# --- with a model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base in 4 bits, a LoRA for it, a design, and rows to choose from."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place)], env=run.environment, check=True)
    rows = [{"prompt": f"word {i}", "completion": f"{i} drow"} for i in range(12)]
    (place / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run.ok("design", "-o", "words", "--base", "tiny", "--system", "Backwards!")
    return run


@pytest.mark.models
def test_examples_are_chosen_by_rows_that_are_never_shown(machine: CommandLine) -> None:
    assert machine.cwd is not None
    done = machine.ok(
        "design", "-o", "chosen", "--base", "tiny", "--choose", "2", "--data", "rows.jsonl",
        "--trials", "3", "--validate", "4", "--json",
    ).json  # fmt: skip
    assert len(done["chosen"]) == len(done["config"]["examples"]) == 2
    lines = {line for one in done["tried"] for line in one["lines"]}
    assert len(lines) <= 8
    assert [one["how"] for one in done["tried"]].count("random") == 3
    assert done["score"] == max(one["score"] for one in done["tried"]) != done["score_without"]
    manifest = decode_manifest((machine.cwd / "chosen" / "adapterhub.json").read_bytes())
    assert manifest.data_sha256
    assert manifest.recipe is not None
    assert manifest.recipe["score_with"] == done["score"]


@pytest.mark.models
def test_what_a_design_does_is_recorded_and_replayed(machine: CommandLine) -> None:
    facts = machine.ok("verify", "./words", "--base", "tiny", "--json").json["facts"]
    assert facts["probe_cosine"] > 0.99


def test_a_base_that_cannot_be_loaded_costs_the_probe_alone(
    adapterhub: CommandLine, named_base: str
) -> None:
    done = adapterhub.ok("design", "-o", "mine", "--base", named_base, "--system", "Be brief.")
    assert "note: saved without a probe: " in done.err


@pytest.mark.models
def test_a_design_and_a_lora_answer_together_and_are_not_merged(machine: CommandLine) -> None:
    refused = machine("stack", "./lora", "./words", "-o", "merged")
    assert refused.code == 10
    assert refused.complaint[0].startswith("./words, a prompt_design adapter, cannot be merged")
    written = machine.ok("stack", "./lora", "./words", "--strategy", "sequential", "--json").json
    assert (written["strategy"], written["rank"]) == ("sequential", None)
    words = ("run", "composition.toml", "word 3", "--max-new-tokens", "4", "--json")
    assert machine.ok(*words).json[0]["prompt_tokens"] > 20


def test_what_was_tried_is_told_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from adapterhub.cli.choosing import Choice
    from adapterhub.evaluate.shots import Tried

    scores = (-2.0, -1.5, -math.inf)
    tried = tuple(Tried(examples=(i, i + 1), how="random", score=s) for i, s in enumerate(scores))
    choice = Choice(
        examples=[],
        recipe={"score": "loglik"},
        data_sha256="0" * 64,
        tried=tried,
        best=tried[1],
        without=-1.0,
        lines=(3, 5, 8, 9),
    )
    choice.show(Output())
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()[1:]]
    assert rows == [
        ["chosen", "-1.5000", "5", "8"],
        ["random", "-2.0000", "3", "5"],
        ["random", "too", "long", "8", "9"],
        ["none", "-1.0000"],
    ]
    assert "no set of examples does better than none" in err
    assert choice.to_json()["tried"][2] == {"lines": [8, 9], "how": "random", "score": None}
