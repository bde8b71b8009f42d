"""`stack --search-weights`: the weights of a sum are found on a loaded base."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.command_line import SCRIPT, CommandLine

SEARCH = ("--search-weights", "--base", "tiny")

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
config = method_of("lora").new_config(base.spec, {"rank": 2})
for seed, name in enumerate(("one", "two")):
    rack = Rack(base)
    adapter = rack.attach_fresh("made", "lora", config, seed=seed)
    shake(adapter)
    (place / name).mkdir()
    (place / name / "adapter_config.json").write_bytes(encode_config(config))
    state = {k: v * (1 + seed) for k, v in adapter.state().items()}
    save_file(state, place / name / "adapter_model.safetensors", {"format": "pt"})
    rack.detach("made")
"""


@pytest.mark.parametrize(
    ("words", "code", "fact"),
    [
        (("--search-weights", "--task", "x.jsonl"), 2, "--search-weights needs a base"),
        (("--search-weights", "--base", "tiny"), 2, "--search-weights needs a base"),
        (("--task", "x.jsonl"), 2, "--task goes with --search-weights"),
        (("--trials", "4"), 2, "--trials goes with --search-weights"),
        ((*SEARCH, "--task", "x", "--strategy", "ties"), 10, "weights are searched for linear"),
        ((*SEARCH, "--task", "x", "--strategy", "sequential"), 10, "weights are searched for"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    adapterhub: CommandLine, adapter: Path, words: tuple[str, ...], code: int, fact: str
) -> None:
    done = adapterhub("stack", adapter, *words)
    assert done.code == code
    assert len(done.complaint) == 2
    assert done.complaint[0].startswith(fact)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base in 4 bits, two LoRAs that harm it, and rows."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", TINY, str(place)], env=run.environment, check=True)
    rows = [{"prompt": f"word {i}", "completion": f"{i} drow"} for i in range(24)]
    (place / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


@pytest.mark.models
def test_the_weights_found_are_written_down(machine: CommandLine) -> None:
    assert machine.cwd is not None
    words = ("stack", "./one", "./two", *SEARCH, "--task", "rows.jsonl", "--trials", "12")
    done = machine.ok(*words, "-o", "found.toml", "--json")
    search = done.json["search"]
    assert len(search["trials"]) <= 12
    assert search["trials"][0]["weights"] == [1.0, 1.0]
    assert search["searched_on"]["n"] == search["judged_on"]["n"] == 12
    assert search["searched_on"]["loss_end"] < search["searched_on"]["loss_start"]
    written = tomllib.loads((machine.cwd / "found.toml").read_text())
    kept = [weight for weight in search["weights"] if weight]
    assert [term["weight"] for term in written["terms"]] == kept
    assert (kept != [1.0, 1.0]) == search["taken"]
    assert written["searched"]["weights_searched_on"] == "rows.jsonl"
    assert written["searched"]["search_trials"] == len(search["trials"])
    # It goes where these weights go, and no further.
    machine.ok("stack", "--from", "found.toml", "-o", "copy.toml")
    copied = tomllib.loads((machine.cwd / "copy.toml").read_text())
    assert copied["searched"] == written["searched"]
    machine.ok("stack", "found.toml", "--weights", "0.5", "-o", "halved.toml")
    assert "searched" not in tomllib.loads((machine.cwd / "halved.toml").read_text())
    assert "would flatter these weights" in done.err
    # The same again, to the same bytes; a place that is taken is noticed before the search.
    again = machine.ok(*words, "-o", "again.toml", "--json")
    assert again.json["search"] == search
    taken = machine(*words, "-o", "again.toml")
    assert (taken.code, "searching" in taken.err) == (2, False)


@pytest.mark.models
def test_what_is_merged_says_how_its_weights_were_found(machine: CommandLine) -> None:
    assert machine.cwd is not None
    words = (*SEARCH, "--task", "rows.jsonl", "--limit", "8", "--trials", "4", "-o", "merged")
    out = machine.ok("stack", "./one*0.5", "./two", *words).out
    assert "searched  loss" in out
    manifest = json.loads((machine.cwd / "merged" / "adapterhub.json").read_text())
    assert manifest["recipe"]["weights_searched_on"] == "rows.jsonl"
    assert len(manifest["recipe"]["search_rows_sha256"]) == 64
    assert "weights_searched_on" in (machine.cwd / "merged" / "README.md").read_text()


@pytest.mark.models
@pytest.mark.parametrize(
    ("task", "code", "fact"),
    [
        ("none.jsonl", 2, "there is no file none.jsonl"),
        ("no-such-task", 3, "no-such-task"),
        ("few.jsonl", 2, "1 rows of few.jsonl are too few"),
    ],
)
def test_a_task_without_rows_is_refused_before_the_base_is_loaded(
    machine: CommandLine, task: str, code: int, fact: str
) -> None:
    assert machine.cwd is not None
    (machine.cwd / "few.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = machine("stack", "./one", "./two", *SEARCH, "--task", task, "-o", "none.toml")
    assert done.code == code
    assert fact in done.complaint[0]


@pytest.mark.models
def test_a_named_task_is_searched_on_rows_that_it_does_not_report_on(
    machine: CommandLine,
) -> None:
    words = (*SEARCH, "--task", "iso-dates", "--limit", "6", "--trials", "2", "--dry-run")
    done = machine.ok("stack", "./one", "./two", *words)
    assert "at most 2 trials on 3 rows of iso-dates, judged by 3 others" in done.err
