"""Adapters of which one answers: each request names it, or each prompt decides."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.command_line import SCRIPT, CommandLine

pytestmark = pytest.mark.models
TINY = """
import sys
from pathlib import Path
from adapterhub.models.bases import add_base
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.testing.tiny import write_tiny
from adapterhub.domain.recipe import Recipe
from adapterhub.train.run import train_adapter
place = Path(sys.argv[1])
add_base("tiny", str(write_tiny("llama", place / "tiny")), scheme_by_name("nf4"))
for name, method in (("sums", "lora"), ("words", "prompt_tuning")):
    recipe = Recipe(
        base="tiny", data=str(place / f"{name}.jsonl"), method=method, steps=2, learning_rate=1e-2
    )
    train_adapter(recipe, place / name, device="cpu")
"""
SUMS = [(f"{i} + {2 * i} =", f"{3 * i}") for i in range(11, 19)]
WORDS = [(f"SPELL {word}!", word.lower()) for word in ("QWX", "ZZXQ", "WQZ", "XXZ", "ZWQX", "QZ")]
RUN = ("--max-new-tokens", "3", "--device", "cpu")


def write_rows(path: Path, pairs: list[tuple[str, str]], *adapters: str) -> None:
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in pairs]
    named = [
        {**row, **({"adapter": adapters[i % len(adapters)]} if adapters else {})}
        for i, row in enumerate(rows)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in named))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A base; `sums`, trained, and `words`, prompt tuning, each with a centroid; `design`, a prompt
    without one; all published but that."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    write_rows(place / "sums.jsonl", SUMS)
    write_rows(place / "words.jsonl", WORDS)
    write_rows(place / "mixed.jsonl", [*SUMS[:3], *WORDS[:2]])
    write_rows(place / "named.jsonl", [*SUMS[:3], *WORDS[:2]], "me/sums", "words")
    write_rows(place / "wrong.jsonl", [SUMS[0], WORDS[0]], "me/sums", "me/wrods")
    subprocess.run([python, "-c", TINY, str(place)], env=run.environment, check=True)
    for name in ("sums", "words"):
        run.ok("push", name, f"me/{name}")
    run.ok("design", "-o", "design", "--base", "tiny", "--system", "Be brief.")
    run.ok("stack", "me/sums", "me/words", "--strategy", "switch", "-o", "switch.toml")
    run.ok("stack", "me/sums", "me/words", "--strategy", "route", "-o", "route.toml")
    return run


def centroid(machine: CommandLine, folder: str) -> dict[str, object]:
    assert machine.cwd is not None
    text = (machine.cwd / folder / "adapterhub.json").read_text()
    found: dict[str, object] = json.loads(text)["centroid"]
    return found


def test_the_request_names_who_answers(machine: CommandLine) -> None:
    alone = machine.ok("run", "me/words", "hi", *RUN, "--json").json[0]
    named = ("run", "me/sums+me/words", "hi", "--strategy", "switch", "--use", "words", *RUN)
    found = machine.ok(*named, "--json").json[0]
    assert found["answered_by"] == "me/words"
    assert (found["text"], found["prompt_tokens"]) == (alone["text"], alone["prompt_tokens"])
    other = machine.ok("run", "switch.toml", "hi", "--use", "me/sums", *RUN, "--json").json[0]
    assert other["answered_by"] == "me/sums"


@pytest.mark.parametrize(
    ("words", "fact", "hint"),
    [
        (("switch.toml", "hi"), "a request names none of the adapters", "me/sums, me/words"),
        (("switch.toml", "hi", "--use", "x"), "'x' is none of the adapters", "me/sums, me/words"),
        (("me/sums", "hi", "--use", "sums"), "--use names one of several", "--strategy switch"),
        (("route.toml", "hi", "--use", "sums"), "put together by route", "leave --use out"),
    ],
)
def test_a_name_that_is_missing_or_means_nothing_is_refused(
    machine: CommandLine, words: tuple[str, ...], fact: str, hint: str
) -> None:
    done = machine("run", *words, *RUN)
    assert (done.code, fact in done.complaint[0], hint in done.complaint[1]) == (2, True, True)


def test_the_prompt_decides_who_answers_and_it_is_said(machine: CommandLine) -> None:
    for prompt, name in (("13 + 29 =", "me/sums"), ("SPELL WZQ!", "me/words")):
        done = machine.ok("run", "route.toml", prompt, *RUN, "--json")
        assert done.json[0]["answered_by"] == name
        assert f"note: {name} answers; cosines: me/sums " in done.err
    side = machine.ok(
        "run", "me/sums+me/words", "13 + 29 =", "--strategy", "route", "--compare", *RUN
    )
    assert "note: me/sums answers" in side.err


def test_an_evaluation_counts_who_answered(machine: CommandLine) -> None:
    done = machine.ok("eval", "route.toml", "switch.toml", "--task", "named.jsonl", "--json")
    assert done.json["answered"] == {
        "route.toml": {"named.jsonl": {"me/sums": 3, "me/words": 2}},
        "switch.toml": {"named.jsonl": {"me/sums": 3, "me/words": 2}},
    }
    assert "note: route.toml on named.jsonl, items answered: me/sums 3, me/words 2" in done.err
    assert [row["adapter"] for row in done.json["rows"]] == ["route.toml"] * 2 + ["switch.toml"] * 2


@pytest.mark.parametrize(
    ("rows", "fact"),
    [
        ("mixed.jsonl", "item 1 of mixed.jsonl: a request names none"),
        ("wrong.jsonl", "item 2 of wrong.jsonl: 'me/wrods' is none"),
    ],
)
def test_rows_that_name_no_member_are_refused(machine: CommandLine, rows: str, fact: str) -> None:
    done = machine("eval", "switch.toml", "--task", rows)
    assert done.code == 2
    assert done.complaint[0].startswith(fact)
    assert done.complaint[1].startswith("name one: me/sums, me/words")


@pytest.mark.parametrize("strategy", ["switch", "route"])
def test_what_chooses_is_never_merged(machine: CommandLine, strategy: str) -> None:
    done = machine("stack", "me/sums", "me/words", "--strategy", strategy, "-o", "merged")
    assert (done.code, done.complaint[0].startswith(f"{strategy} exists attached only")) == (
        10,
        True,
    )
    done = machine("merge", f"{strategy}.toml", "--base", "tiny", "-o", "model")
    assert (done.code, "is no sum of its members" in done.complaint[0]) == (10, True)


def test_what_chooses_does_not_teach(machine: CommandLine) -> None:
    done = machine(
        "train", "--base", "tiny", "--data", "sums.jsonl", "-o", "taught", "--trainer", "distill",
        "--teacher", "route.toml",
    )  # fmt: skip
    assert (done.code, done.complaint[0].startswith("route.toml does not teach")) == (10, True)


def test_a_composition_that_chooses_is_published_and_pulled(machine: CommandLine) -> None:
    machine.ok("push", "route.toml", "me/routed")
    machine.ok("pull", "me/routed")
    found = machine.ok("run", "me/routed", "13 + 29 =", *RUN, "--json").json[0]
    assert found["answered_by"] == "me/sums"
    assert machine.ok("verify", "me/routed", "--json").json["ok"] is True


def test_an_adapter_without_a_centroid_is_given_one(machine: CommandLine) -> None:
    refused = machine("stack", "me/sums", "./design", "--strategy", "route", "-o", "no.toml")
    assert (refused.code, refused.complaint[0].startswith("./design has no centroid")) == (5, True)
    assert "--centroid FILE|TASK" in refused.complaint[1]
    machine.ok("push", "design", "me/brief", "--base", "tiny", "--centroid", "words.jsonl")
    asked = ("run", "me/sums+me/brief", "SPELL WZQ!", "--strategy", "route", *RUN, "--json")
    assert machine.ok(*asked).json[0]["answered_by"] == "me/brief"
    machine.ok(
        "design", "-o", "own", "--base", "tiny", "--system", "S", "--centroid", "words.jsonl"
    )
    assert "centroid  of 6 prompts, 64 numbers after block 1" in machine.ok("show", "./own").out
    # Whatever was attached meanwhile, virtual tokens or a system message of its own.
    assert centroid(machine, "own") == centroid(machine, "words")


@pytest.mark.parametrize(
    ("words", "fact", "hint"),
    [
        (
            "push design me/no --centroid words.jsonl",
            "a centroid is taken on a base",
            "--base NAME",
        ),
        (
            "design -o no --base tiny --system S --centroid no.jsonl",
            "there is no file",
            "--centroid",
        ),
        (
            "extract ./tiny ./tiny -o no --centroid words.jsonl",
            "a centroid is taken on",
            "base add",
        ),
    ],
)
def test_a_centroid_of_nothing_is_refused(
    machine: CommandLine, words: str, fact: str, hint: str
) -> None:
    done = machine(*words.split())
    assert done.code == 2
    assert done.complaint[0].startswith(fact)
    assert hint in done.complaint[1]
    assert machine.cwd is not None
    assert not (machine.cwd / "no").exists()


def test_a_spoilt_centroid_is_refused_where_it_is_read(machine: CommandLine) -> None:
    assert machine.cwd is not None
    path = machine.cwd / "own" / "adapterhub.json"
    if not path.is_file():
        machine.ok(
            "design", "-o", "own", "--base", "tiny", "--system", "S", "--centroid", "words.jsonl"
        )
    manifest = json.loads(path.read_text())
    manifest["centroid"]["dimension"] = 63
    path.write_text(json.dumps(manifest))
    done = machine("show", "./own")
    assert done.code == 4
    assert "adapterhub.json: centroid: a centroid holds 128 bytes" in done.complaint[0]
