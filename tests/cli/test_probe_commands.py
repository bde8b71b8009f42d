"""From training to a stranger's machine: a probe is recorded, replayed, and loud when it fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.command_line import SCRIPT, CommandLine

pytestmark = pytest.mark.models
BASES = """
import sys
from pathlib import Path
from adapterhub.models.bases import add_base
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.testing.tiny import write_tiny
place = Path(sys.argv[1])
quiet = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}"
    "{% endfor %}"
)
for name, scheme, more in (
    ("tiny", "nf4", {}), ("twin", "nf4", {"seed": 1}), ("deaf", "nf4", {"template": quiet}),
):
    source = write_tiny("llama", place / name, **more)
    add_base(name, str(source), scheme_by_name(scheme))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A tiny base, another of its shape, one that drops system messages; and an adapter of the
    first in `trained` and `bare`, where it has no probe."""
    place = tmp_path_factory.mktemp("machine")
    run = CommandLine(place / "home", cwd=place, forked=True)
    python = str(SCRIPT.with_name("python"))
    subprocess.run([python, "-c", BASES, str(place / "bases")], env=run.environment, check=True)
    (place / "rows.jsonl").write_text('{"prompt": "안녕", "completion": "hello"}\n')
    (place / "others.jsonl").write_text('{"prompt": "hi", "completion": "안녕"}\n')
    run.ok(
        "train", "--base", "tiny", "--data", "rows.jsonl", "--batch-size", "1", "-o", "trained",
        "--steps", "4", "--lr", "1e-2", "--eval-data", "others.jsonl", "--golden", "1",
    )  # fmt: skip
    bare = place / "bare"
    bare.mkdir()
    for path in (place / "trained").iterdir():
        if path.name != "README.md":
            (bare / path.name).write_bytes(path.read_bytes())
    edit(bare, probe=None, golden=[])
    return run


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapterhub.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: item for key, item in manifest.items() if item is not None}))


def manifest_of(machine: CommandLine, name: str) -> dict[str, object]:
    assert machine.cwd is not None
    found: dict[str, object] = json.loads((machine.cwd / name / "adapterhub.json").read_text())
    return found


def test_a_trained_adapter_is_pulled_and_its_effect_checked_once(machine: CommandLine) -> None:
    pushed = machine.ok("push", "trained", "me/probed")
    assert "no probe" not in pushed.err
    first = machine.ok("pull", "me/probed", "--base", "tiny", "--device", "cpu")
    assert "beside its probe: cosine 1.000, strength 1.00" in first.out
    assert "probe    recorded on nf4" in machine.ok("pull", "me/probed").out
    kept = list((machine.home / "cache" / "verdicts").iterdir())
    assert len(kept) == 1
    again = machine.ok("pull", "me/probed", "--base", "tiny", "--device", "cpu", "--json").json
    assert again["facts"]["probe_cosine"] == pytest.approx(1, abs=1e-3)
    assert list((machine.home / "cache" / "verdicts").iterdir()) == kept


def test_verify_asks_the_golden_samples_again(machine: CommandLine) -> None:
    found = machine.ok("verify", "./trained", "--base", "tiny", "--device", "cpu")
    assert "golden     1 of 1 answers are those recorded" in found.out


def test_an_adapter_without_a_probe_is_pushed_with_a_word_and_given_one(
    machine: CommandLine,
) -> None:
    assert "note: it has no probe" in machine.ok("push", "bare", "me/bare").err
    done = machine.ok(
        "push", "bare", "me/bare", "--base", "tiny", "--device", "cpu", "--golden", "1",
        "--golden-from", "others.jsonl",
    )  # fmt: skip
    assert "probe: logits change by " in done.err
    assert "no probe" not in done.err
    pulled = machine.ok("pull", "me/bare", "--base", "tiny", "--device", "cpu", "--json").json
    assert pulled["facts"]["probe_cosine"] > 0.99
    assert "Golden samples" in (Path(pulled["folder"]) / "README.md").read_text()
    assert "probe" not in manifest_of(machine, "bare")


def test_golden_samples_are_refused_from_the_rows_of_the_training(machine: CommandLine) -> None:
    words = ("push", "bare", "me/no", "--base", "tiny", "--golden", "1", "--golden-from")
    assert "trained on" in machine(*words, "rows.jsonl").complaint[0]
    assert "need a base" in machine("push", "bare", "me/no", "--golden", "1").complaint[0]


def test_a_wrong_base_of_the_same_shape_is_refused_with_figures_and_remembered_if_allowed(
    machine: CommandLine,
) -> None:
    words = ("./trained", "hi", "--base", "twin", "--device", "cpu", "--max-new-tokens", "2")
    allowed = ("--allow", "wrong-base")
    done = machine("run", *words, *allowed)
    assert done.code == 5
    assert "its effect points elsewhere (cosine " in done.complaint[0]
    assert "--allow probe-mismatch" in done.complaint[1]
    machine.ok("run", *words, *allowed, "--allow", "probe-mismatch")
    machine.ok(
        "stack", "./trained", "-o", "merged", "--base", "twin", *allowed, "--allow",
        "probe-mismatch",
    )  # fmt: skip
    made = manifest_of(machine, "merged")
    assert made["allowed"] == ["probe-mismatch", "wrong-base"]
    assert "probe" in made


def test_a_teacher_that_is_not_what_it_was_is_refused_and_remembered_if_allowed(
    machine: CommandLine,
) -> None:
    words = (
        "--base", "twin", "--data", "rows.jsonl", "--trainer", "distill", "--teacher", "./trained",
        "--batch-size", "1", "--steps", "1", "-O", "rank=2", "--device", "cpu",
    )  # fmt: skip
    done = machine("train", *words, "-o", "never", "--allow", "wrong-base")
    assert done.code == 5
    assert "./trained: it does not do what it did when it was made" in done.complaint[0]
    assert "--allow probe-mismatch" in done.complaint[1]
    allowed = ("--allow", "wrong-base", "--allow", "probe-mismatch")
    machine.ok("train", *words, "-o", "taught", *allowed)
    assert manifest_of(machine, "taught")["allowed"] == ["probe-mismatch", "wrong-base"]
    # A recipe file says nothing of what is allowed, so that goes beside it.
    assert machine("train", "taught/recipe.toml", "-o", "again").code == 5
    machine.ok("train", "taught/recipe.toml", "-o", "again", *allowed)


def test_a_template_that_drops_a_system_message_is_said_aloud(machine: CommandLine) -> None:
    said = "note: the chat template of deaf leaves system messages out"
    designed = machine.ok("design", "-o", "words", "--base", "deaf", "--system", "Be brief.")
    assert said in designed.err
    words = ("--base", "deaf", "--allow", "wrong-base", "--allow", "probe-mismatch")
    run = ("run", "./trained", "hi", "--max-new-tokens", "2", "--device", "cpu", *words)
    assert said in machine.ok(*run, "--system", "Be brief.").err
    assert said not in machine.ok(*run).err


def test_a_chat_template_that_is_not_used_is_said_once(machine: CommandLine) -> None:
    assert machine.cwd is not None
    own = machine.cwd / "own"
    own.mkdir()
    for path in (machine.cwd / "trained").iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    (own / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    note = "note: ./own: it brings a chat template of its own, which is not this base's"
    asked = machine.ok("run", "./own", "hi", "--base", "tiny", "--max-new-tokens", "2")
    assert asked.err.count(note) == 1
    plain = machine.ok("run", "./trained", "hi", "--base", "tiny", "--max-new-tokens", "2")
    assert "chat template" not in plain.err
