"""Whole runs with a teacher: a recipe in, a folder out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.digest import sha256_hex
from adapterhub.errors import (
    InterruptedRunError,
    MismatchError,
    NoEffectError,
    UsageError,
    VerificationError,
)
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from adapterhub.formats.recipe_file import decode_recipe
from adapterhub.hub.folder import adapter_digest, read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.loader import Base
from adapterhub.testing.practice import ROWS
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.find_rate import find_rate
from adapterhub.train.run import train_adapter
from adapterhub.trust.record import record_probe
from tests.distilling import recipe
from tests.other_bases import add_wide_base, store_lora

pytestmark = pytest.mark.models


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "bf16", home)


@pytest.fixture
def teacher(base: Base, tmp_path: Path) -> str:
    return str(store_lora(base, tmp_path / "teacher", seed=1))


# --- whole runs -------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": question, "completion": answer}) for question, answer in ROWS]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def nf4(base: Base, home: Path) -> Base:
    return add_tiny_base("llama", "nf4", home)


@pytest.mark.parametrize("batching", ["padded", "packed"])
def test_a_whole_run_leaves_an_adapter_that_says_who_taught_it(
    batching: str, nf4: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    other = tmp_path / "others.jsonl"
    other.write_text('{"prompt": "1 + 1", "completion": "2"}\n')
    asked = replace(
        recipe(nf4, steps=4, teacher=teacher, options={"rank": 4}, batching=batching),
        data=str(rows),
        eval_data=str(other),
        eval_every=2,
        trainer_options={"cache": str(tmp_path / "kept"), "hard": 0.2},
    )
    trained = train_adapter(asked, tmp_path / "out", base=nf4)
    assert list(verify_folder(trained.folder).problems) == []
    assert trained.manifest.trainer == "distill"
    assert trained.manifest.recipe is not None
    assert trained.manifest.recipe["teacher"] == "teacher"
    assert decode_recipe((trained.folder / "recipe.toml").read_bytes()) == asked
    # One set of samples for the rows, another for those that are only evaluated on.
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 2


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    nf4: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    def stop(step: Any) -> None:
        if step.number == 2:
            raise KeyboardInterrupt

    asked = replace(recipe(nf4, steps=4, teacher=teacher, batch_size=2), data=str(rows))
    whole = train_adapter(asked, tmp_path / "whole", base=nf4)
    with pytest.raises(InterruptedRunError):
        train_adapter(asked, tmp_path / "halved", base=nf4, on_step=stop)
    again = train_adapter(asked, tmp_path / "halved", base=nf4)
    one, other = (r.folder / "adapter_model.safetensors" for r in (whole, again))
    assert one.read_bytes() == other.read_bytes()


def test_the_manifest_holds_the_digests_of_whoever_taught(
    nf4: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    asked = replace(recipe(nf4, steps=1, teacher=f"0.5*{teacher}"), data=str(rows))
    trained = train_adapter(asked, tmp_path / "out", base=nf4)
    manifest = decode_manifest((tmp_path / "out" / "adapterhub.json").read_bytes())
    assert manifest == trained.manifest
    told = (manifest.recipe or {})["taught_by"]
    sha256 = sha256_hex((Path(teacher) / "adapter_model.safetensors").read_bytes())
    [adapter] = told["adapters"]
    assert (adapter["ref"], adapter["weight"], adapter["sha256"]) == ("teacher", 0.5, sha256)
    assert told["base"]["fingerprint"]["content"] == nf4.spec.fingerprint.content


def test_a_run_does_not_go_on_with_another_teacher_of_the_same_name(
    nf4: Base, base: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    def stop(step: Any) -> None:
        raise KeyboardInterrupt

    asked = replace(recipe(nf4, steps=4, teacher=teacher), data=str(rows))
    with pytest.raises(InterruptedRunError):
        train_adapter(asked, tmp_path / "out", base=nf4, on_step=stop)
    shutil.rmtree(teacher)
    store_lora(base, Path(teacher), seed=2)
    with pytest.raises(UsageError, match="differs in the teacher's weights"):
        train_adapter(asked, tmp_path / "out", base=nf4)


def test_it_learns_under_bf16_autocast(nf4: Base, teacher: str, rows: Path, tmp_path: Path) -> None:
    for options in ({}, {"cache": True}):
        asked = recipe(nf4, teacher=teacher, precision="bf16", trainer_options=options)
        asked = replace(asked, data=str(rows), steps=8)
        steps = train_adapter(asked, tmp_path / "out", base=nf4, overwrite=True).outcome.steps
        assert steps[-1].loss < steps[0].loss


@pytest.mark.parametrize("method", ["bottleneck", "full", "ia3", "prompt_tuning"])
def test_whatever_is_trained_can_be_taught(
    method: str, base: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    asked = replace(recipe(base, steps=6, teacher=teacher, method=method), data=str(rows))
    steps = train_adapter(asked, tmp_path / "out", base=base).outcome.steps
    assert steps[-1].loss < steps[0].loss


# --- a teacher is asked for its effect before it teaches ----------------------------------------


def edited(folder: Path, **changes: Any) -> None:
    """Change the config, and have the probe belong to it as if a tool had copied it over."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    found = read_folder(folder)
    assert found.manifest.probe is not None
    probe = replace(found.manifest.probe, adapter=adapter_digest(folder, found.config))
    manifest = encode_manifest(replace(found.manifest, probe=probe))
    (folder / "adapterhub.json").write_bytes(manifest)


def scaled(folder: Path, factor: float) -> None:
    """Every B of a LoRA times `factor`, of which nothing in its config tells."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    state = {k: v * factor if "lora_B" in k else v for k, v in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})


def test_a_teacher_edited_after_its_probe_is_refused_before_any_step_unless_allowed(
    nf4: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    record_probe(store_lora(nf4, tmp_path / "other", seed=2), nf4, name="other")
    other = tmp_path / "other"
    alpha = json.loads((other / "adapter_config.json").read_text())["lora_alpha"]
    edited(other, lora_alpha=100 * alpha)
    asked = replace(recipe(nf4, steps=2, teacher=f"{teacher}+0.5*{other}"), data=str(rows))
    steps: list[Any] = []
    with pytest.raises(MismatchError, match="other: it does not do what it did") as caught:
        train_adapter(asked, tmp_path / "out", base=nf4, on_step=steps.append)
    assert "--allow probe-mismatch" in (caught.value.hint or "")
    with pytest.raises(MismatchError, match="other: it does not do what it did"):
        find_rate(asked, tmp_path / "out", base=nf4)
    assert steps == []
    assert not (tmp_path / "out").exists()
    said: list[str] = []
    allow = frozenset({"probe-mismatch"})
    trained = train_adapter(asked, tmp_path / "out", base=nf4, allow=allow, say=said.append)
    assert trained.manifest.allowed == ("probe-mismatch",)
    stored = decode_manifest((tmp_path / "out" / "adapterhub.json").read_bytes())
    assert stored.allowed == ("probe-mismatch",)
    assert any(line.startswith(f"note: {other}: it does not do") for line in said)
    # Whoever learns from that one in turn inherits what was allowed of it.
    asked = replace(recipe(nf4, steps=1, teacher=str(trained.folder)), data=str(rows))
    assert train_adapter(asked, tmp_path / "next", base=nf4).manifest.allowed == stored.allowed


@pytest.mark.parametrize("factor", [0.0, 1e-12])
def test_a_teacher_that_changes_nothing_is_refused_unless_allowed(
    factor: float, nf4: Base, teacher: str, rows: Path, tmp_path: Path
) -> None:
    """By its bytes where they are zero, else by asking it."""
    kind = NoEffectError if factor else VerificationError
    scaled(Path(teacher), factor)
    asked = replace(recipe(nf4, steps=1, teacher=teacher), data=str(rows))
    steps: list[Any] = []
    with pytest.raises(kind, match=r"changes nothing|no effect|zero"):
        train_adapter(asked, tmp_path / "out", base=nf4, on_step=steps.append)
    assert steps == []
    allow = frozenset({"no-effect"})
    trained = train_adapter(asked, tmp_path / "out", base=nf4, allow=allow)
    assert trained.manifest.allowed == ("no-effect",)


def test_a_teacher_made_for_another_base_teaches_only_if_that_is_allowed_and_remembered(
    base: Base, home: Path, rows: Path, tmp_path: Path
) -> None:
    wide = add_wide_base(home, name="wide", hidden=64)
    elsewhere = str(store_lora(wide, tmp_path / "elsewhere", seed=1))
    asked = replace(recipe(base, steps=1, teacher=elsewhere), data=str(rows))
    with pytest.raises(MismatchError, match="was made for wide") as caught:
        train_adapter(asked, tmp_path / "out", base=base)
    assert "--allow wrong-base" in (caught.value.hint or "")
    trained = train_adapter(asked, tmp_path / "out", base=base, allow=frozenset({"wrong-base"}))
    assert trained.manifest.allowed == ("wrong-base",)
