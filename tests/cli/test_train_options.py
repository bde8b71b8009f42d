"""The options of `train` become a recipe: what was said, what a preset chooses, the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from adapterhub.cli.train_options import pairs, recipe_in, recipe_of, recipe_options
from adapterhub.domain.method import Method
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import FormatError, NotFoundError, UsageError
from adapterhub.formats.recipe_file import encode_recipe
from adapterhub.plugin.catalog import catalog

BASE = ("--base", "b", "--data", "d")


def method(**preset: Any) -> Method:
    return Method(
        name="thrifty", summary="", target="nowhere:Nothing", reference="", config_version=1,
        capabilities=frozenset(), preset=preset,
    )  # fmt: skip


def recipe(*words: str, record: Method | None = None) -> tuple[Recipe, list[str]]:
    """The recipe of a command line, and what was said aloud."""
    made: list[Recipe] = []
    said: list[str] = []

    @click.command()
    @recipe_options
    def command(**settings: Any) -> None:
        made.append(recipe_of(settings, record or method(), say=said.append))

    CliRunner().invoke(command, [*BASE, *words], catch_exceptions=False, standalone_mode=False)
    return made[0], said


def test_what_is_not_said_is_left_to_the_method_and_the_recipe() -> None:
    made, said = recipe()
    assert made == Recipe(base="b", data="d", method="thrifty")
    assert (made.options, said) == ({}, [])


def test_every_field_of_a_recipe_has_an_option() -> None:
    made, _ = recipe(
        "--steps", "7", "--batch-size", "4", "--accumulate", "2", "--lr", "0.01",
        "--schedule", "linear", "--warmup", "0.2", "--weight-decay", "0.1", "--clip", "2",
        "--max-length", "99", "--seed", "3", "--lr-ratio", "16", "--optimizer", "adamw8bit",
        "--precision", "bf16", "--checkpointing", "--batching", "packed", "--eval-data", "e",
        "--eval-every", "5", "--patience", "2", "--keep", "best", "--checkpoint-every", "6",
        "--trainer", "distill", "-T", "temperature=2.0", "--teacher", "a/b", "--teacher-base", "c",
        "--rank", "4", "--alpha", "8", "--dropout", "0.1", "--targets", "mlp", "-O", "rslora=true",
    )  # fmt: skip
    assert made == Recipe(
        base="b", data="d", method="thrifty", trainer="distill", steps=7, batch_size=4,
        accumulate=2, learning_rate=0.01, schedule="linear", warmup=0.2, weight_decay=0.1, clip=2.0,
        max_length=99, seed=3, lr_ratio=16.0, optimizer="adamw8bit", precision="bf16",
        checkpointing=True, batching="packed", eval_data="e", eval_every=5, patience=2,
        keep="best", checkpoint_every=6, trainer_options={"temperature": 2.0}, teacher="a/b",
        teacher_base="c",
        options={"rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": "mlp", "rslora": True},
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "every"), [(100, 10), (3, 1)])
def test_rows_to_evaluate_on_are_used_ten_times_unless_said_otherwise(
    steps: int, every: int
) -> None:
    made, _ = recipe("--eval-data", "e", "--steps", str(steps))
    assert made.eval_every == every


def test_a_preset_fills_what_was_left_alone_and_says_so() -> None:
    record = method(
        optimizer="paged_adamw8bit", checkpointing=True, learning_rate=2e-4,
        options={"rank": 64, "alpha": 16},
    )  # fmt: skip
    made, said = recipe("--lr", "1e-3", "--rank", "8", record=record)
    assert (made.optimizer, made.checkpointing) == ("paged_adamw8bit", True)
    assert (made.learning_rate, made.options) == (1e-3, {"rank": 8, "alpha": 16})
    assert said == [
        "thrifty chooses optimizer paged_adamw8bit, checkpointing on, options rank=8 alpha=16"
    ]


def written(place: Path, text: str) -> tuple[Recipe, list[str]]:
    """The recipe in a file that somebody wrote by hand, and what was said aloud."""
    file, said = place / "recipe.toml", list[str]()
    file.write_text(f'base = "b"\ndata = "d"\n{text}')
    return recipe_in(file, say=said.append), said


@pytest.mark.parametrize("name", [entry.record.name for entry in catalog().methods])
def test_a_recipe_written_by_hand_is_completed_as_the_command_line_is(
    name: str, tmp_path: Path
) -> None:
    assert written(tmp_path, f'method = "{name}"\n') == recipe(record=catalog().methods[name])
    evaluated = recipe("--eval-data", "e", record=catalog().methods[name])
    assert written(tmp_path, f'method = "{name}"\neval_data = "e"\n') == evaluated


def test_what_a_recipe_says_itself_no_preset_changes(tmp_path: Path) -> None:
    made, said = written(tmp_path, 'method = "qlora"\nlearning_rate = 5e-4\nclip = 1.0\n')
    assert (made.learning_rate, made.clip, made.optimizer) == (5e-4, 1.0, "paged_adamw8bit")
    assert "learning_rate" not in said[0]
    (tmp_path / "whole.toml").write_bytes(encode_recipe(Recipe(base="b", data="d", method="qlora")))
    again = recipe_in(tmp_path / "whole.toml", say=said.append)
    assert again == Recipe(base="b", data="d", method="qlora")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [("method = 3\n", FormatError), ('method = "lorra"\n', NotFoundError),
     ('eval_data = "e"\nsteps = "9"\n', FormatError)],
)  # fmt: skip
def test_a_recipe_that_makes_no_sense_is_refused(
    text: str, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        written(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("lora", 1e-3), ("qlora", 2e-4), ("ia3", 2e-2), ("full", 5e-5), ("prompt_tuning", 1.5e-2)],
)
def test_each_method_has_the_rate_that_is_usual_for_it(name: str, rate: float) -> None:
    record = catalog().methods[name]
    assert recipe(record=record)[0].learning_rate == rate
    assert recipe("--lr", "0.004", record=record)[0].learning_rate == 0.004


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4), ("0.5", 0.5), ("true", True), ("[1, 2]", [1, 2]), ("mlp", "mlp"),
        ('"4"', "4"), ("a=b", "a=b"), ("2026-11-24", "2026-11-24"),
        ("1\nother = 2", "1\nother = 2"),
        ("", ""), ("{a = 1}", {"a": 1}),
    ],
)  # fmt: skip
def test_a_value_is_what_toml_reads_in_it_and_else_itself(text: str, value: Any) -> None:
    found = pairs([f"key={text}"], option="-O")["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("texts", [["key"], ["=4"], ["a=1", "a=2"]])
def test_what_is_no_pair_or_stands_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        pairs(texts, option="--option")
