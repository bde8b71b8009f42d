"""`adapterhub design`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub import __version__
from adapterhub.cli.options import centroid_option, device_option, json_option
from adapterhub.cli.output import Output
from adapterhub.cli.proving import prompts_of, record_effect
from adapterhub.domain.manifest import CARD_FILE, CONFIG_FILE, MANIFEST_FILE, Manifest
from adapterhub.domain.match import record_of
from adapterhub.errors import FormatError, UsageError
from adapterhub.plugin.catalog import catalog

if TYPE_CHECKING:
    from adapterhub.cli.choosing import Choice
    from adapterhub.domain.base import BaseSpec

METHOD = "prompt_design"
_BETWEEN = "=>"
_OF_THE_CHOICE = ("score", "trials", "validate", "seed", "device")


@click.command(short_help="Write a prompt as an adapter: nothing is trained.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@click.option("--base", "base_name", required=True, metavar="NAME", help="The base it is for.")
@click.option("--system", metavar="TEXT|@FILE", help="What is said before any conversation.")
@click.option("--template", metavar="TEXT|@FILE", help="Put round the prompt: 'Q: {prompt}'.")
@click.option("--example", "shown", multiple=True, metavar="'IN => OUT'", help="May be repeated.")
@click.option(
    "--examples",
    "examples_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON lines, a row an example.",
)
@click.option("--choose", type=click.IntRange(1, 64), metavar="N", help="Find N more in --data.")
@click.option("--data", metavar="FILE|TASK", help="JSON lines, or the name of a task.")
@click.option(
    "--score",
    type=click.Choice(("loglik", "exact")),
    default="loglik",
    show_default=True,
    help="By which a set of examples is chosen.",
)
@click.option(
    "--trials", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Random sets."
)
@click.option(
    "--validate", type=click.IntRange(min=1), help="Rows that judge; default: 32 or half."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--overwrite", is_flag=True, help="Replace the folder once the new one is whole.")
@centroid_option
@device_option
@json_option
def design(
    *,
    out: Path,
    base_name: str,
    system: str | None,
    template: str | None,
    shown: tuple[str, ...],
    examples_file: Path | None,
    choose: int | None,
    data: str | None,
    centroid: str | None,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write a system text, examples and a template as an adapter, to be pushed, stacked and
    evaluated as any other.

    With --choose, sets of N rows of --data are tried as examples, and the set is taken behind which
    the base answers other rows of that file best.
    """
    say = Output(as_json=as_json)
    _check_choice(choose, data)
    from adapterhub.hub.staging import check_free
    from adapterhub.models.bases import find_base

    check_free(out, overwrite=overwrite)
    options: dict[str, Any] = {
        "system": _text(system),
        "template": _text(template),
        "examples": [*map(_example, shown), *_file_examples(examples_file)],
    }
    spec = find_base(base_name)
    prompts = prompts_of(centroid)
    if options["system"]:
        _say_if_dropped(spec, say)
    made = _maker(spec, options)
    choice: Choice | None = None
    if choose is not None and data is not None:
        from adapterhub.cli.choosing import choose_examples

        choice = choose_examples(METHOD, spec, made, choose, data=data, settings=settings, say=say)
    config = made(choice.examples if choice else [])
    _write(out, config, spec, choice, overwrite=overwrite)
    record_effect(out, spec, say, device=settings["device"], prompts=prompts)
    say.data({"folder": str(out), "config": config, **(choice.to_json() if choice else {})})
    if choice:
        choice.show(say)
    say.line(f"{out}   {METHOD} · {_summary(config)}")
    say.next(f"adapterhub eval {out} --base {base_name} --task FILE|NAME")


def _check_choice(choose: int | None, data: str | None) -> None:
    """An option that would be dropped in silence is refused."""
    if choose is not None and data is None:
        raise UsageError("--choose needs rows to choose from", hint="add --data FILE.jsonl")
    if choose is not None:
        return
    context = click.get_current_context()
    given = click.core.ParameterSource.COMMANDLINE
    stray = [n for n in _OF_THE_CHOICE if context.get_parameter_source(n) is given]
    if data is not None or stray:
        raise UsageError(
            f"--{'data' if data is not None else stray[0]} goes with --choose",
            hint="add --choose N to find examples, or give them: --example 'in => out'",
        )


def _text(value: str | None) -> str | None:
    """The value, or the file that `@FILE` names, without the line break at its end."""
    if value is None or not value.startswith("@"):
        return value
    from adapterhub.hub.files import disk

    path = Path(value[1:]).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="check the path behind the @")
    with disk("read", path):
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", hint=f"save {path} as UTF-8") from error


def _example(text: str) -> dict[str, str]:
    prompt, between, completion = (part.strip() for part in text.partition(_BETWEEN))
    if not (prompt and between and completion):
        raise UsageError(
            f"{text!r} is no example", hint=f"write --example 'in {_BETWEEN} out', both sides"
        )
    return {"prompt": prompt, "completion": completion}


def _file_examples(path: Path | None) -> list[dict[str, str]]:
    if path is None:
        return []
    from adapterhub.formats.rows import read_rows, row_to_messages

    found = []
    for line, row in read_rows(path):
        messages, answer = row_to_messages(row, line, path.name)
        if [turn.role for turn in messages] != ["user"]:
            raise UsageError(
                f"{path.name} line {line} is more than a prompt and its answer",
                hint="an example has no system message and one turn; --system is for all of them",
            )
        found.append({"prompt": messages[0].content, "completion": answer})
    return found


def _say_if_dropped(spec: BaseSpec, out: Output) -> None:
    """A system text that the base never sees would be a silent nothing."""
    from adapterhub.models.loader import load_chat

    try:
        chat = load_chat(spec)
    except (ImportError, FormatError):
        out.say(f"note: whether the template of {spec.name} keeps a system text is unchecked")
        return
    if chat.drops_system:
        out.say(f"note: {chat.dropping(spec.name)}: this one would change nothing")


def _maker(
    spec: BaseSpec, options: dict[str, Any]
) -> Callable[[list[dict[str, str]]], dict[str, Any]]:
    """From more examples to the whole config."""
    from adapterhub.runtime.attach import method_of

    method = method_of(METHOD)
    return lambda more: method.new_config(
        spec, {**options, "examples": [*options["examples"], *more]}
    )


def _write(
    out: Path, config: dict[str, Any], spec: BaseSpec, choice: Choice | None, *, overwrite: bool
) -> None:
    from adapterhub.formats.adapter_config import encode_config
    from adapterhub.formats.card import render_card
    from adapterhub.formats.manifest import encode_manifest
    from adapterhub.hub.staging import staged_folder

    manifest = Manifest(
        method=METHOD,
        config_version=catalog().methods[METHOD].config_version,
        base=record_of(spec),
        recipe=choice.recipe if choice else None,
        data_sha256=choice.data_sha256 if choice else None,
        written_by=f"adapterhub {__version__}",
    )
    with staged_folder(out, overwrite=overwrite) as folder:
        (folder / CONFIG_FILE).write_bytes(encode_config(config))
        (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
        card = render_card(manifest, name=out.absolute().name)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _summary(config: dict[str, Any]) -> str:
    count = len(config.get("examples", ()))
    parts = [
        f"system of {len(config['system'])} characters" if "system" in config else "",
        f"{count} example{'s' * (count != 1)}" if count else "",
        "template" if "template" in config else "",
    ]
    return " · ".join(filter(None, parts))
