"""`compat` looks before a merge; `tree` looks back at what was made from what."""

from __future__ import annotations

import hashlib
import json
import shlex
import struct
from pathlib import Path

import pytest

from tests.adapter_files import PREFIX, Tensor, lora_tensors, write_lora
from tests.base_records import write_base_record
from tests.command_line import CommandLine

MODULES = tuple(f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1))


def unit(shape: tuple[int, int], *places: tuple[int, int]) -> Tensor:
    rows, columns = shape
    values = [float((r, c) in places) for r in range(rows) for c in range(columns)]
    return "F32", shape, struct.pack(f"<{len(values)}f", *values)


def apart(first: int) -> dict[str, Tensor]:
    """Rank 2 in directions of its own."""
    made = {}
    for module in MODULES:
        made[f"{PREFIX}{module}.lora_A.weight"] = unit((2, 8), (0, first), (1, first + 1))
        made[f"{PREFIX}{module}.lora_B.weight"] = unit((8, 2), (first, 0), (first + 1, 1))
    return made


@pytest.fixture
def two(adapterhub: CommandLine, tmp_path: Path) -> CommandLine:
    write_lora(tmp_path / "one", tensors=apart(0))
    write_lora(tmp_path / "two", tensors=apart(4))
    return adapterhub


@pytest.mark.models
def test_the_advice_is_a_command_that_works(two: CommandLine, tmp_path: Path) -> None:
    done = two.ok("compat", "./one", "./two", "--picture", "met.png")
    assert done.out.startswith("yes       2 adapters can be attached together, or merged\n")
    assert "base      one base (by name)" in done.out
    assert "nearly orthogonal (overlap 0.00, cosine +0.00)" in done.out
    assert [line.split()[0] for line in done.out.splitlines() if line[:1] in "01"] == ["0", "1"]
    assert (tmp_path / "met.png").read_bytes().startswith(b"\x89PNG")
    command = done.err.splitlines()[-1].removeprefix("next: adapterhub ")
    assert command == "stack ./one ./two --strategy core_space -o merged"
    two.ok(*shlex.split(command))
    two.ok("stack", "./one", "./two")
    told = two.ok("compat", "composition.toml", "--json").json
    assert (told["fits"], told["advice"]["strategy"]) == (True, "core_space")
    assert [layer["layer"] for layer in told["pairs"][0]["layers"]] == [0, 1]
    assert [row["module"] for row in told["pairs"][0]["per_module"]] == list(MODULES)
    again = two("compat", "./one", "./two", "--picture", "met.png")
    assert (again.code, again.complaint[0]) == (2, "met.png already exists")


@pytest.mark.models
def test_what_is_in_the_way_is_named_and_ends_with_1(two: CommandLine, tmp_path: Path) -> None:
    write_lora(tmp_path / "else", tensors=apart(4), base_model_name_or_path="acme/other")
    fused = lora_tensors(modules=("model.layers.0.self_attn.qkv_proj",))
    write_lora(tmp_path / "fused", tensors=fused, target_modules=["qkv_proj"])
    write_base_record(two.home, "tiny")
    done = two("compat", "./one", "./else")
    assert (done.code, len(done.complaint)) == (1, 2)
    assert "./one was made for acme/tiny, but ./else for acme/other" in done.complaint[0]
    done = two("compat", "./one", "./fused")
    assert done.code == 1
    assert "adapterhub convert ./fused --layout split -o DIR" in done.complaint[1]
    done = two("compat", "./one", "./else", "--allow", "different-base", "--base", "tiny", "--json")
    assert done.code == 1
    assert [item["base"]["fits"] for item in done.json["adapters"]] == [True, False]
    assert "./else was made for acme/other, but tiny is acme/tiny" in done.complaint[0]


@pytest.mark.models
def test_what_is_no_delta_is_attached(two: CommandLine) -> None:
    write_base_record(two.home, "tiny")
    two.ok("design", "-o", "words", "--base", "tiny", "--system", "Be brief.")
    done = two.ok("compat", "./one", "./two", "./words")
    assert done.out.startswith("yes       3 adapters can be attached together\n")
    assert "./words is more than low-rank deltas" in done.out
    assert done.err.endswith("next: adapterhub stack ./one ./two ./words\n")


def made_from(folder: Path, strategy: str, *parents: tuple[float, str, Path]) -> Path:
    """A LoRA whose manifest names its parents by the weights that they have now."""
    write_lora(folder, tensors=apart(6))
    manifest = {
        "schema_version": 1,
        "method": "lora",
        "config_version": 1,
        "base": {"id": "acme/tiny"},
        "strategy": strategy,
        "parents": [
            {"ref": ref, "weight": weight, "sha256": sha256_of(place)}
            for weight, ref, place in parents
        ],
    }
    (folder / "adapterhub.json").write_text(json.dumps(manifest))
    return folder


def sha256_of(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_the_family_goes_back_to_the_base(two: CommandLine, tmp_path: Path) -> None:
    two.ok("push", "./one", "me/one")
    one, other = tmp_path / "one", tmp_path / "two"
    both = made_from(tmp_path / "both", "linear", (1.0, "me/one", one), (0.5, "./two", other))
    made_from(tmp_path / "plain", "canonical", (1.0, "both", both))
    lines = two.ok("tree", "plain").out.splitlines()
    assert lines[0] == "acme/tiny"
    assert lines[1].endswith("plain   lora, by canonical")
    assert "1 * both   lora, by linear · sha256 agrees" in lines[2]
    assert "1 * me/one   lora · " in lines[3]
    assert lines[3].endswith(" · sha256 agrees")
    assert "0.5 * ./two   lora · sha256 agrees" in lines[4]
    told = two.ok("tree", "plain", "--json").json
    assert [item["agrees"] for item in told["made_from"][0]["made_from"]] == [True, True]


def test_what_changed_or_is_lost_hides_nothing_else(two: CommandLine, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "two"
    made_from(tmp_path / "both", "linear", (1.0, "me/lost", one), (0.5, "./two", other))
    write_lora(other, tensors=apart(2))
    lines = two.ok("tree", "both").out.splitlines()
    assert "me/lost   unknown here: " in lines[2]
    assert "./two   lora · changed since: sha256 " in lines[3]


def test_teachers_models_cycles_and_strangers(adapterhub: CommandLine, tmp_path: Path) -> None:
    one = write_lora(tmp_path / "one")
    teacher = {"ref": "me/gone", "weight": 0.5, "sha256": "0" * 64}
    manifest = {
        "schema_version": 1,
        "method": "lora",
        "config_version": 1,
        "base": {"id": "acme/tiny"},
        "parents": [{"ref": "./one", "weight": 1.0, "sha256": "0" * 64}],
        "recipe": {
            "taught_by": {"base": {"id": "acme/large"}, "adapters": [teacher, {"ref": 3}, "x"]},
            "extracted_from": "acme/tuned",
        },
    }
    (one / "adapterhub.json").write_text(json.dumps(manifest))
    lines = adapterhub.ok("tree", "./one").out.splitlines()
    assert "1 * ./one   lora · changed since: sha256 " in lines[2]
    assert lines[2].endswith("as above")
    assert "teacher: 0.5 * me/gone   unknown here: " in lines[3]
    assert "base of the teacher: acme/large" in lines[4]
    assert "tuned model: acme/tuned" in lines[5]
    # Published, its parents' folders are those of whoever published it.
    adapterhub.ok("push", "./one", "me/one")
    lines = adapterhub.ok("tree", "me/one").out.splitlines()
    assert "1 * ./one   unknown here: a folder of whoever made it" in lines[2]
    assert adapterhub("tree", "local:me/nothing").code == 3
    assert adapterhub("tree", "./nothing").code == 3
