"""A whole run: a recipe in, a folder out that anyone can load."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.recipe import Recipe
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import (
    CapabilityError,
    DataError,
    NotFoundError,
    StorageError,
    TrainingError,
    UsageError,
)
from adapterhub.formats.manifest import decode_manifest, encode_manifest
from adapterhub.formats.recipe_file import decode_recipe
from adapterhub.hub.client import push
from adapterhub.hub.folder import read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.bases import base_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack
from adapterhub.testing.plain import base_bytes, logits_of
from adapterhub.testing.practice import objective
from adapterhub.testing.tiny import add_tiny_base, temporary_home
from adapterhub.train.find_rate import find_rate
from adapterhub.train.run import Trained, train_adapter
from adapterhub.train.save import published

pytestmark = pytest.mark.models

WEIGHTS = "adapter_model.safetensors"
FILES = {
    "README.md",
    "adapter_config.json",
    WEIGHTS,
    "adapterhub.json",
    "loss.png",
    "recipe.toml",
}


def recipe_for(rows: Path, **more: Any) -> Recipe:
    settings = {"base": "tiny-llama-nf4", "steps": 4, "batch_size": 4, "learning_rate": 1e-2}
    return Recipe(data=str(rows), **{**settings, "options": {"rank": 4}, **more})


def sha_of(trained: Trained) -> str:
    return sha256_hex((trained.folder / WEIGHTS).read_bytes())


@pytest.fixture
def nf4(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "nf4", home)


def test_a_run_leaves_every_file(nf4: Base, rows: Path, tmp_path: Path) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    assert {path.name for path in trained.folder.iterdir()} == FILES
    assert (trained.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert trained.outcome.stopped == "finished"
    assert trained.parameters > 0


def test_what_a_run_leaves_passes_verification(nf4: Base, rows: Path, tmp_path: Path) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    assert list(verify_folder(trained.folder).problems) == []


def test_the_manifest_says_what_the_run_was(nf4: Base, rows: Path, tmp_path: Path) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    manifest = decode_manifest((trained.folder / "adapterhub.json").read_bytes())
    assert manifest == trained.manifest == decode_manifest(encode_manifest(manifest))
    assert manifest.base.fingerprint == nf4.spec.fingerprint
    assert manifest.base.scheme == nf4.spec.scheme
    assert manifest.recipe is not None
    assert manifest.recipe["steps_done"] == 4
    assert (manifest.method, manifest.trainer) == ("lora", "sft")


def test_a_run_records_what_its_adapter_does(nf4: Base, rows: Path, tmp_path: Path) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    probe = trained.manifest.probe
    assert probe is not None
    assert read_folder(tmp_path / "out").manifest == trained.manifest
    assert (probe.bound, probe.relative > 0) == (probe.tensors, True)
    assert probe.environment.scheme == nf4.spec.scheme
    assert len((tmp_path / "out" / "adapterhub.json").read_bytes()) < 100_000


def test_golden_samples_are_of_rows_that_were_not_trained_on(
    nf4: Base, rows: Path, tmp_path: Path
) -> None:
    trained_on = [json.loads(line) for line in rows.read_text().splitlines()]
    new = {"prompt": "a row of its own", "completion": "yes"}
    others = tmp_path / "others.jsonl"
    others.write_text("".join(json.dumps(row) + "\n" for row in [*trained_on, new]))
    recipe = recipe_for(rows, eval_data=str(others), eval_every=4)
    (sample,) = train_adapter(recipe, tmp_path / "out", base=nf4, golden=1).manifest.golden
    assert sample.messages[-1].content == "a row of its own"
    assert "## Golden samples" in (tmp_path / "out" / "README.md").read_text()
    for count, asked, fact in ((2, recipe, "1 of "), (1, recipe_for(rows), "never taken from")):
        with pytest.raises(UsageError, match=fact):
            train_adapter(asked, tmp_path / "more", base=nf4, golden=count)
    assert not (tmp_path / "more").exists()


# peft asks transformers in words that the newest transformers deprecates.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_plain_peft_loads_it_and_says_the_same(
    family: str, home: Path, rows: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = add_tiny_base(family, "bf16", home)
    train_adapter(recipe_for(rows), tmp_path / "out", base=base)
    rack = Rack(base)
    rack.attach("one", read_folder(tmp_path / "out"))
    rack.activate((("one", 1.0),))
    with temporary_home(home):
        plain = AutoModelForCausalLM.from_pretrained(
            base_folder(base.spec.name), dtype=torch.float32
        )
    theirs = PeftModel.from_pretrained(plain, tmp_path / "out").eval()
    assert (logits_of(theirs) - logits_of(base.model)).abs().max() < 1e-5


def test_its_recipe_makes_it_again(nf4: Base, rows: Path, tmp_path: Path) -> None:
    first = train_adapter(recipe_for(rows, seed=5), tmp_path / "out")
    recipe = decode_recipe((first.folder / "recipe.toml").read_bytes())
    assert recipe == recipe_for(rows, seed=5)
    assert sha_of(train_adapter(recipe, tmp_path / "again")) == sha_of(first)


def test_a_loaded_base_is_used_and_left_as_it_was(nf4: Base, rows: Path, tmp_path: Path) -> None:
    before = base_bytes(nf4.model)
    given = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    assert base_bytes(nf4.model) == before
    assert sha_of(train_adapter(recipe_for(rows), tmp_path / "again")) == sha_of(given)


def test_a_run_that_diverges_is_saved_as_of_its_last_good_step(
    nf4: Base, rows: Path, tmp_path: Path
) -> None:
    def spoil(step: Any) -> None:
        if step.number == 2:
            with torch.no_grad():
                nf4.model.get_input_embeddings().weight[:] = float("nan")

    import torch

    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4, on_step=spoil)
    assert trained.outcome.stopped == "diverged"
    assert trained.manifest.recipe is not None
    assert trained.manifest.recipe["steps_done"] == 1
    assert list(verify_folder(trained.folder).problems) == []
    assert not list(tmp_path.glob(".out*"))


# --- refusals, before anything is loaded ------------------------------------------------------


def test_a_taken_folder_is_refused_before_anything_is_looked_up(
    nf4: Base, rows: Path, tmp_path: Path
) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    before = sha_of(trained)
    with pytest.raises(UsageError, match="already holds an adapter"):
        train_adapter(recipe_for(rows, base="no-such-base"), tmp_path / "out")
    assert sha_of(trained) == before
    train_adapter(recipe_for(rows, seed=9), tmp_path / "out", base=nf4, overwrite=True)
    assert sha_of(trained) != before


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"base": "tiny-lama-nf4"}, NotFoundError),
        ({"method": "lorra"}, NotFoundError),
        ({"trainer": "sftt"}, NotFoundError),
        ({"options": {"ranks": 4}}, UsageError),
        ({"data": "missing.jsonl"}, UsageError),
        ({"seed": 10**20}, UsageError),
        ({"max_length": 10}, DataError),
    ],
)
def test_what_cannot_run_leaves_nothing(
    changes: dict[str, Any], error: type[Exception], nf4: Base, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(error):
        train_adapter(replace(recipe_for(rows), **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_row_longer_than_the_base_takes_is_refused(nf4: Base, rows: Path, tmp_path: Path) -> None:
    long = f'{{"prompt": "{"x" * 600}", "completion": "y"}}\n'
    rows.write_text(rows.read_text() + long)
    with pytest.raises(DataError, match=r"rows\.jsonl line 5 .* the limit is 512"):
        train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)


@pytest.mark.parametrize(
    ("targets", "hint"),
    [
        ("q_proj,v_prj", "did you mean 'v_proj'?"),
        ("query_key_value", "it has down_proj, gate_proj"),
    ],
)
def test_a_target_that_this_base_does_not_have_is_refused_and_leaves_it_alone(
    targets: str, hint: str, nf4: Base, rows: Path, tmp_path: Path
) -> None:
    before = base_bytes(nf4.model)
    options = {"rank": 4, "targets": targets}
    with pytest.raises(UsageError, match="no layer called") as caught:
        train_adapter(recipe_for(rows, options=options), tmp_path / "out", base=nf4)
    assert (caught.value.hint or "").startswith(hint)
    assert base_bytes(nf4.model) == before
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    nf4: Base, rows: Path
) -> None:
    steps: list[Any] = []
    with pytest.raises(StorageError):
        train_adapter(recipe_for(rows), Path("/proc/nope/x"), base=nf4, on_step=steps.append)
    assert steps == []


def test_where_the_data_lay_is_not_published(nf4: Base, rows: Path, tmp_path: Path) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    assert trained.manifest.recipe is not None
    assert trained.manifest.recipe["data"] == "rows.jsonl"
    for name in ("adapterhub.json", "README.md"):
        assert str(rows.parent) not in (trained.folder / name).read_text()


def test_no_byte_of_a_push_says_where_the_data_lay(
    nf4: Base, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "a client" / "payroll.jsonl"
    private.parent.mkdir()
    shutil.copy(rows, private)
    recipe = replace(
        recipe_for(private), eval_data=str(held_out_of(private)), eval_every=1, steps=2
    )
    trained = train_adapter(recipe, tmp_path / "out", base=nf4)
    assert "a client" in (trained.folder / "recipe.toml").read_text()  # it repeats the run here
    monkeypatch.setenv("ADAPTERHUB_HOME", str(tmp_path / "home"))
    push(trained.folder, parse_ref("me/private"))
    sent = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert any(b"payroll.jsonl" in data for data in sent)
    assert not any(b"a client" in data for data in sent)


def held_out_of(rows: Path) -> Path:
    path = rows.with_name("held out.jsonl")
    path.write_text(rows.read_text().replace("blue", "grey"))
    return path


def test_a_run_that_diverges_at_once_leaves_nothing(nf4: Base, rows: Path, tmp_path: Path) -> None:
    import torch

    broken = nf4.model.get_input_embeddings().weight
    with torch.no_grad():
        broken[:] = float("nan")
    with pytest.raises(TrainingError, match="not finite at the first step"):
        train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    assert not (tmp_path / "out").exists()
    assert not hasattr(nf4.model, "peft_config")


@pytest.mark.parametrize(
    ("text", "published_as"),
    [
        ("/home/me/one+0.5*./two", "one+0.5*two"),
        ("~/adapters/one", "one"),
        ("me/one@main+team:them/two", "me/one@main+team:them/two"),
    ],
)
def test_where_the_teacher_lay_is_not_published(text: str, published_as: str) -> None:
    recipe = Recipe(base="b", data="d", teacher=text, trainer_options={"cache": "/tmp/x/cache"})
    table = published(recipe)
    assert (table["teacher"], table["trainer_options"]) == (published_as, {"cache": "cache"})


def test_the_data_may_move_afterwards(nf4: Base, rows: Path, tmp_path: Path) -> None:
    trained = train_adapter(recipe_for(rows), tmp_path / "out", base=nf4)
    shutil.move(rows, tmp_path / "moved.jsonl")
    again = train_adapter(recipe_for(tmp_path / "moved.jsonl"), tmp_path / "again", base=nf4)
    assert sha_of(again) == sha_of(trained)
    assert again.manifest.data_sha256 == trained.manifest.data_sha256


# --- every method -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning", "p_tuning"])
def test_virtual_tokens_and_packed_rows_do_not_go_together(
    method: str, nf4: Base, rows: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(rows, method=method, options={}, batching="packed")
    with pytest.raises(CapabilityError, match=f"{method} puts its tokens before a row"):
        train_adapter(recipe, tmp_path / "out", base=nf4)


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning", "p_tuning"])
def test_a_row_that_fits_only_without_the_virtual_tokens_is_refused(
    method: str, nf4: Base, rows: Path, tmp_path: Path
) -> None:
    items = [(1, Item(messages=(Message(role="user", content=""),), answer="y"))]
    [short] = objective().examples(items, nf4.chat)
    room = 512 - len(short.ids)
    longest = f'{{"prompt": "{"x" * room}", "completion": "y"}}\n'
    rows.write_text(rows.read_text() + longest)
    recipe = recipe_for(rows, steps=1, method=method, options={"tokens": 3})
    message = r"rows\.jsonl line 5 has 512 tokens behind 3 virtual ones, and \S+ takes 512"
    with pytest.raises(DataError, match=message):
        train_adapter(recipe, tmp_path / "out", base=nf4)
    with pytest.raises(DataError, match=message):
        find_rate(recipe, tmp_path / "out", base=nf4)
    rows.write_text(rows.read_text().replace("xxxx", "x"))
    train_adapter(recipe, tmp_path / "out", base=nf4)


@pytest.mark.parametrize("method", ["bottleneck", "ia3", "ln_tuning"])
@pytest.mark.parametrize("changes", [{"batching": "packed"}, {"checkpointing": True}], ids=str)
def test_another_way_to_compute_gives_the_same_run(
    method: str, changes: dict[str, Any], nf4: Base, rows: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(rows, method=method, options={}, learning_rate=1e-3)
    runs = [
        train_adapter(made, tmp_path / str(number), base=nf4)
        for number, made in enumerate((recipe, replace(recipe, **changes)))
    ]
    plain, other = ([step.loss for step in run.outcome.steps] for run in runs)
    assert other == pytest.approx(plain, rel=1e-4)


def test_a_preset_is_stored_as_the_method_it_makes(nf4: Base, rows: Path, tmp_path: Path) -> None:
    recipe = recipe_for(rows, method="qlora")
    trained = train_adapter(recipe, tmp_path / "out", base=nf4)
    assert trained.manifest.method == "lora"
    assert trained.manifest.base.scheme == nf4.spec.scheme
    assert decode_recipe((trained.folder / "recipe.toml").read_bytes()).method == "qlora"
    assert list(verify_folder(trained.folder).problems) == []


def test_a_method_that_changes_the_weights_themselves_needs_them_whole(
    nf4: Base, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(CapabilityError, match="full does not work on a quantized base"):
        train_adapter(recipe_for(rows, method="full", options={}), tmp_path / "out", base=nf4)


def test_a_method_without_training_says_what_to_use_instead(
    nf4: Base, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(CapabilityError, match="prompt_design is not trained") as caught:
        train_adapter(recipe_for(rows, method="prompt_design"), tmp_path / "out", base=nf4)
    assert caught.value.hint == "use `adapterhub design`"
