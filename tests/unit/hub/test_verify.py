"""Promises of verification: each planted fault is found, and a good adapter has none."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import NotFoundError
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.verify import verify_folder
from tests.adapter_files import MODULES, PREFIX, Tensor, f32, lora_tensors, write_lora

FIRST, SECOND = (f"{PREFIX}{module}" for module in MODULES)
PRINT = Fingerprint(layout="l", sketch="s", content="c")
BASE = BaseSpec(
    name="tiny", id="acme/tiny", source="acme/tiny", revision="a" * 40, family="llama",
    modality="causal-lm", scheme=scheme_by_name("nf4"), fingerprint=PRINT, parameters=10,
    stored_bytes=5, context_length=64,
)  # fmt: skip


def codes(path: Path, base: BaseSpec | None = None) -> list[str]:
    report = verify_folder(path, base=base)
    assert report.ok == (not report.problems)
    assert all(problem.message and problem.hint for problem in report.problems)
    return [problem.code for problem in report.problems]


def write_manifest(folder: Path, **changes: Any) -> Path:
    manifest = Manifest(method="lora", config_version=1, base=BaseRecord(id="acme/tiny"))
    data = encode_manifest(dataclasses.replace(manifest, **changes))
    (folder / "adapterhub.json").write_bytes(data)
    return folder


def test_a_good_adapter_has_no_problem_and_known_facts(tmp_path: Path) -> None:
    report = verify_folder(write_lora(tmp_path))
    assert report.problems == ()
    assert report.facts == {
        "method": "lora",
        "base": "acme/tiny",
        "inferred": True,
        "rank": 2,
        "scaling": 2.0,
        "modules": 2,
        "zero_modules": 0,
        "tensors": 4,
        "bytes": (tmp_path / "adapter_model.safetensors").stat().st_size,
        "effect": "unchecked",
    }


def without(*names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in lora_tensors().items() if name not in names}


ZERO = {f"{name}.lora_B.weight": f32((8, 2), 0.0) for name in (FIRST, SECOND)}
NAN = {f"{FIRST}.lora_A.weight": ("F32", (2, 8), struct.pack("<f", float("nan")) * 16)}
BARE = {name.removeprefix(PREFIX): tensor for name, tensor in lora_tensors().items()}


@pytest.mark.parametrize(
    ("tensors", "changes", "code"),
    [
        (lora_tensors() | NAN, {}, "not-finite"),
        (lora_tensors() | ZERO, {}, "no-effect"),
        (lora_tensors(), {"r": 4}, "rank-mismatch"),
        (lora_tensors(), {"rank_pattern": {"layers.1.self_attn.q_proj": 4}}, "rank-mismatch"),
        (without(f"{FIRST}.lora_B.weight"), {}, "unpaired-tensor"),
        (without(f"{FIRST}.lora_A.weight"), {}, "unpaired-tensor"),
        (lora_tensors(), {"target_modules": ["q_proj", "v_proj"]}, "target-without-weights"),
        (lora_tensors(), {"layers_to_transform": [0, 1, 2]}, "target-without-weights"),
        (lora_tensors(), {"target_modules": r".*layers\.0.*"}, "weights-without-target"),
        (lora_tensors(), {"layers_to_transform": [0]}, "weights-without-target"),
        (lora_tensors(), {"exclude_modules": [MODULES[0]]}, "weights-without-target"),
        (lora_tensors() | {f"{PREFIX}lm_head.weight": f32((4,))}, {}, "unexpected-tensor"),
        (lora_tensors() | {f"{FIRST}.lora_C.weight": f32((4,))}, {}, "unexpected-tensor"),
        (lora_tensors() | {f"{FIRST}.lora_B.bias": f32((8,))}, {}, "unexpected-tensor"),
        (
            lora_tensors() | {f"{FIRST}.lora_magnitude_vector": f32((8,))},
            {},
            "unexpected-tensor",
        ),
        (lora_tensors(), {"use_dora": True}, "missing-tensor"),
        (lora_tensors(), {"modules_to_save": ["lm_head"]}, "missing-tensor"),
    ],
)
def test_a_planted_fault_is_found_and_no_other(
    tmp_path: Path, tensors: Mapping[str, Tensor], changes: dict[str, Any], code: str
) -> None:
    assert codes(write_lora(tmp_path, tensors=tensors, **changes)) == [code]


def test_a_pattern_that_would_never_end_is_not_tried(tmp_path: Path) -> None:
    tensors = lora_tensors(modules=("model." + "a" * 400,))
    folder = write_lora(tmp_path, tensors=tensors, target_modules=".*" * 6 + "b")
    assert codes(folder) == ["costly-pattern"]


def test_a_wrong_prefix_leaves_the_targets_empty_too(tmp_path: Path) -> None:
    assert codes(write_lora(tmp_path, tensors=BARE)) == ["wrong-prefix", "target-without-weights"]


@pytest.mark.parametrize(
    ("extra", "changes"),
    [
        ({}, {"target_modules": r"model\.layers\.\d+\.self_attn\.(q_proj|k_proj)"}),
        ({}, {"target_modules": "all-linear"}),
        ({}, {"layers_to_transform": [0, 1], "layers_pattern": "layers"}),
        ({}, {"r": 4, "rank_pattern": {r"layers\.\d+\.self_attn.q_proj": 2}}),
        ({f"{PREFIX}lm_head.weight": f32((4,))}, {"modules_to_save": ["lm_head"]}),
        ({f"{name}.lora_B.bias": f32((8,)) for name in (FIRST, SECOND)}, {"lora_bias": True}),
        (
            {f"{name}.lora_magnitude_vector": f32((8,)) for name in (FIRST, SECOND)},
            {"use_dora": True},
        ),
    ],
)
def test_what_peft_writes_has_no_problem(
    tmp_path: Path, extra: dict[str, Tensor], changes: dict[str, Any]
) -> None:
    assert codes(write_lora(tmp_path, tensors=lora_tensors() | extra, **changes)) == []


def test_some_idle_modules_are_a_fact_and_no_problem(tmp_path: Path) -> None:
    tensors = lora_tensors() | {f"{FIRST}.lora_B.weight": f32((8, 2), -0.0)}
    report = verify_folder(write_lora(tmp_path, tensors=tensors))
    assert report.ok
    assert report.facts["zero_modules"] == 1


def test_zero_loras_beside_trained_modules_may_have_an_effect(tmp_path: Path) -> None:
    tensors = lora_tensors() | ZERO | {f"{PREFIX}lm_head.weight": f32((4,))}
    assert codes(write_lora(tmp_path, tensors=tensors, modules_to_save=["lm_head"])) == []


def test_an_idle_bias_makes_no_module_idle(tmp_path: Path) -> None:
    biases = {f"{name}.lora_B.bias": f32((8,), 0.0) for name in (FIRST, SECOND)}
    folder = write_lora(tmp_path, tensors=lora_tensors() | biases, lora_bias=True)
    report = verify_folder(folder)
    assert report.ok
    assert report.facts["zero_modules"] == 0


@pytest.mark.parametrize(("bias", "expected"), [(0.0, ["no-effect"]), (0.5, [])])
def test_zero_loras_with_a_bias_act_by_it_alone(
    tmp_path: Path, bias: float, expected: list[str]
) -> None:
    biases = {f"{name}.lora_B.bias": f32((8,), bias) for name in (FIRST, SECOND)}
    folder = write_lora(tmp_path, tensors=lora_tensors() | ZERO | biases, lora_bias=True)
    assert codes(folder) == expected


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    folder = write_lora(tmp_path, tensors=lora_tensors() | NAN | ZERO, r=4)
    write_manifest(folder, method="unheard_of", base=BaseRecord(id="acme/big"))
    named = {"unknown-method", "method-disagrees", "base-disagrees", "wrong-base"}
    assert set(codes(folder, BASE)) == named | {"not-finite", "rank-mismatch", "no-effect"}


def test_every_broken_file_is_named(tmp_path: Path) -> None:
    folder = write_lora(tmp_path, r=0)
    (folder / "adapterhub.json").write_text("{")
    (folder / "composition.toml").write_text("=")
    (folder / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    expected = {"bad-config", "bad-manifest", "bad-composition", "bad-weights"}
    assert set(codes(folder)) == expected | {"two-adapters"}


def test_rank_patterns_and_rslora_show_in_the_scaling(tmp_path: Path) -> None:
    tensors = lora_tensors(4, MODULES[:1]) | lora_tensors(1, MODULES[1:])
    folder = write_lora(
        tmp_path,
        tensors=tensors,
        r=4,
        use_rslora=True,
        rank_pattern={"layers.1.self_attn.q_proj": 1},
    )
    report = verify_folder(folder)
    assert report.ok
    assert report.facts["rank"] == [1, 4]
    assert report.facts["scaling"] == [2.0, 4.0]


# --- bases ------------------------------------------------------------------------------------

OTHER = Fingerprint(layout="l", sketch="x", content="y")
TUNED = Fingerprint(layout="l", sketch="s", content="y")


@pytest.mark.parametrize(
    ("record", "match", "ok"),
    [
        (BaseRecord(id="acme/tiny"), "by name", True),
        (BaseRecord(id="ACME/Tiny", revision="main"), "by name", True),
        (BaseRecord(id="acme/tiny", revision="a" * 40), "by name", True),
        (BaseRecord(id="acme/tiny", revision="b" * 40), "other", False),
        (BaseRecord(id="acme/big"), "other", False),
        (BaseRecord(id="renamed/tiny", fingerprint=PRINT), "same", True),
        (BaseRecord(id="acme/tiny", fingerprint=TUNED), "probable", True),
        (BaseRecord(id="acme/tiny", revision="a" * 40, fingerprint=OTHER), "same layout", False),
    ],
)
def test_the_base_must_be_the_recorded_one(
    tmp_path: Path, record: BaseRecord, match: str, ok: bool
) -> None:
    folder = write_lora(tmp_path, base_model_name_or_path=None)
    report = verify_folder(write_manifest(folder, base=record), base=BASE)
    assert report.facts["base_match"] == match
    assert [p.code for p in report.problems] == ([] if ok else ["wrong-base"])


def test_a_newer_config_than_the_plugin_knows_is_refused(tmp_path: Path) -> None:
    assert codes(write_manifest(write_lora(tmp_path), config_version=99)) == ["unknown-method"]


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nul.json", "a:b", "dot.", "back\\slash", "new\nline"])
def test_a_name_that_some_system_cannot_hold_is_a_problem(tmp_path: Path, name: str) -> None:
    (write_lora(tmp_path) / name).write_text("")
    assert codes(tmp_path) == ["file-name"]


@pytest.mark.parametrize(("one", "two"), [("a.txt", "A.txt"), ("\u00e9.txt", "e\u0301.txt")])
def test_two_spellings_of_one_name_collide(tmp_path: Path, one: str, two: str) -> None:
    write_lora(tmp_path)
    (tmp_path / one).write_text("")
    (tmp_path / two).write_text("")
    if len(list(tmp_path.iterdir())) < 4:
        pytest.skip("this file system holds one of them only")
    assert codes(tmp_path) == ["file-name"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "adapter")
    (folder / "outside").symlink_to(tmp_path)
    weights = folder / "adapter_model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert codes(folder) == ["symlink", "symlink"]


def test_a_hidden_folder_such_as_gits_is_no_part_of_the_adapter(tmp_path: Path) -> None:
    (write_lora(tmp_path) / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref")
    assert codes(tmp_path) == []


def test_a_pickle_only_adapter_is_a_problem_and_nothing_is_opened(tmp_path: Path) -> None:
    write_lora(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    assert codes(tmp_path) == ["pickle"]


def test_what_is_no_adapter_is_not_verified(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify_folder(tmp_path)
