"""The options of `train` as a recipe: what was given, what a preset chooses, and the defaults.

Knows names, texts and TOML; what a run does with a recipe is not known here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from adapterhub.domain.method import Method
from adapterhub.domain.recipe import (
    BATCHINGS,
    KEEPS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    Recipe,
)
from adapterhub.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

# Shorthands for the options of a method.
_SHORT = ("rank", "alpha", "dropout", "targets")
_FIELDS = {
    "base_name": "base", "lr": "learning_rate", "option": "options",
    "trainer_option": "trainer_options",
}  # fmt: skip
_EVALUATIONS = 10


def recipe_options(function: F) -> F:
    """Every option that says something of the recipe, in the order of `--help`."""
    for option in reversed(_options()):
        function = option(function)
    return function


def _options() -> list[Callable[[Any], Any]]:
    shown: dict[str, Any] = {"show_default": True}
    return [
        click.option("--base", "base_name", metavar="NAME", help="The base to train on."),
        click.option("--data", metavar="FILE|TASK", help="JSON lines, or the name of a task."),
        click.option("--method", default="lora", help="`adapterhub methods`.", **shown),
        click.option("-O", "--option", multiple=True, metavar="KEY=VALUE", help="Of the method."),
        click.option("--rank", type=int, help="The size of the adapter."),
        click.option("--alpha", type=float, help="What its effect is scaled by, over the rank."),
        click.option("--dropout", type=float, help="Of its input."),
        click.option("--targets", help="all-linear, attention, mlp or names of layers."),
        click.option("--trainer", default="sft", help="What is minimised.", **shown),
        click.option(
            "-T", "--trainer-option", multiple=True, metavar="KEY=VALUE", help="Of the trainer."
        ),
        click.option("--teacher", metavar="REF", help="Adapters to learn from: distill."),
        click.option("--teacher-base", metavar="NAME", help="Another base to learn from."),
        click.option("--steps", type=int, default=100, help="Optimizer steps.", **shown),
        click.option("--batch-size", type=int, default=8, help="Rows a step.", **shown),
        click.option("--accumulate", type=int, default=1, help="Parts of a batch.", **shown),
        click.option(
            "--batching", type=click.Choice(BATCHINGS), default="padded",
            help="How rows share a batch.", **shown,
        ),
        click.option("--max-length", type=int, default=2048, help="Tokens in a row.", **shown),
        click.option(
            "--lr", type=float, default=1e-3,
            help="The highest learning rate; some methods have their own.", **shown,
        ),
        click.option("--lr-ratio", type=float, default=1.0, help="B over A (LoRA+).", **shown),
        click.option(
            "--schedule", type=click.Choice(SCHEDULES), default="cosine", help="Of the rate.",
            **shown,
        ),
        click.option("--warmup", type=float, default=0.1, help="Its share of the steps.", **shown),
        click.option("--weight-decay", type=float, default=0.0, help="A step, per rate.", **shown),
        click.option("--clip", type=float, default=1.0, help="The longest gradient.", **shown),
        click.option(
            "--optimizer", type=click.Choice(OPTIMIZERS), default="adamw",
            help="8 bits are for CUDA.", **shown,
        ),
        click.option(
            "--precision", type=click.Choice(PRECISIONS), default="auto",
            help="auto: bf16 on CUDA.", **shown,
        ),
        click.option(
            "--checkpointing/--no-checkpointing", default=False,
            help="Less memory for activations, more time.",
        ),
        click.option(
            "--eval-data", metavar="FILE|TASK", help="Rows to take the loss on: none trained on."
        ),
        click.option("--eval-every", type=int, default=0, help="Steps; 0: a tenth of the run."),
        click.option("--patience", type=int, default=0, help="Evaluations without a lower loss."),
        click.option(
            "--keep", type=click.Choice(KEEPS), default="last", help="Which parameters.", **shown
        ),
        click.option("--checkpoint-every", type=int, default=0, help="Steps; 0: five minutes."),
        click.option("--seed", type=int, default=0, help="Of weights and order.", **shown),
    ]  # fmt: skip


def recipe_of(settings: Mapping[str, Any], record: Method, *, say: Callable[[str], None]) -> Recipe:
    """The recipe of what was given; a preset fills what was left alone, and says so."""
    return Recipe(**_completed({"method": record.name, **_given(settings)}, record, say=say))


def recipe_in(file: Path, *, say: Callable[[str], None]) -> Recipe:
    """The recipe in a file. One that a run wrote says everything; in one that was written by hand a
    preset fills what was left out, as it does on the command line."""
    from adapterhub.formats.recipe_file import decode_recipe
    from adapterhub.hub.files import disk
    from adapterhub.plugin.catalog import catalog

    def complete(table: dict[str, Any]) -> dict[str, Any]:
        method = table.get("method", Recipe.__dataclass_fields__["method"].default)
        if not isinstance(method, str):
            return table  # which the decoder refuses by name
        return _completed(table, catalog().methods[method], say=say)

    with disk("read", file):
        data = file.read_bytes()
    return decode_recipe(data, name=file.name, complete=complete)


def _completed(
    given: Mapping[str, Any], record: Method, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fields of a recipe, given on the command line or in a file that was written by hand, with
    what the method's preset chooses for the others."""
    chosen = {name: value for name, value in record.preset.items() if name not in given}
    options = given.get("options", {})
    if "options" in record.preset and isinstance(options, Mapping):
        added = {k: v for k, v in record.preset["options"].items() if k not in options}
        chosen |= {"options": {**options, **added}} if added else {}
    if chosen:
        words = (f"{name} {_shown(value)}" for name, value in chosen.items())
        say(f"{record.name} chooses {', '.join(words)}")
    merged = {**given, **chosen}
    steps = merged.get("steps", Recipe.__dataclass_fields__["steps"].default)
    if merged.get("eval_data") and not merged.get("eval_every") and isinstance(steps, int):
        merged["eval_every"] = max(1, steps // _EVALUATIONS)
    return merged


def refuse_beside(file: Path, *, allowed: Iterable[str]) -> None:
    """A recipe holds every setting, so an option given with it would be dropped in silence."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if on_the_line(name) and name not in allowed:
            raise UsageError(
                f"{parameter.opts[0]} does not go with {file}, which says it already",
                hint=f"change it in {file}, or give options alone",
            )


def pairs(texts: Iterable[str], *, option: str) -> dict[str, Any]:
    """KEY=VALUE texts as a table. A value is what TOML reads in it, else the text itself."""
    made: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise UsageError(
                f"{option} {text!r} is no KEY=VALUE", hint=f"as in {option} rslora=true"
            )
        if key.strip() in made:
            raise UsageError(f"{option} {key.strip()} is given twice", hint="leave one out")
        made[key.strip()] = _value(value.strip())
    return made


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the recipe that the command line sets."""
    fresh = {name: value for name, value in settings.items() if on_the_line(name)}
    short = {name: fresh.pop(name) for name in _SHORT if name in fresh}
    options = pairs(fresh.pop("option", ()), option="--option")
    for name in short.keys() & options.keys():
        raise UsageError(f"{name} is given twice, by --{name} and --option", hint="leave one out")
    if "trainer_option" in fresh:
        fresh["trainer_option"] = pairs(fresh["trainer_option"], option="--trainer-option")
    if short or options:
        fresh["option"] = {**short, **options}
    known = {field.name for field in fields(Recipe)}
    renamed = {_FIELDS.get(name, name): value for name, value in fresh.items()}
    return {name: value for name, value in renamed.items() if name in known}


def on_the_line(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is ParameterSource.COMMANDLINE


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = table.get("value")
    # A date is a text to a method, and a line break would begin another key.
    plain = isinstance(value, (bool, int, float, str, list, dict))
    return value if plain and len(table) == 1 else text


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_shown(item)}" for key, item in value.items())
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"
