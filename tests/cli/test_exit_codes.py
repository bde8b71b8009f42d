"""One exit code for each kind of failure, met where it really happens."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterhub import errors
from adapterhub.cli.main import _explain
from adapterhub.errors import AdapterhubError
from tests.adapter_files import write_lora
from tests.command_line import CommandLine
from tests.hub_server import Fault, Hub, running_hub
from tests.plugin_folders import write_plugin

CLASSES = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, AdapterhubError)
]
TREE = dict(re.findall(r"(\w+Error)\s+(\d+)", errors.__doc__ or ""))
FILES = ("adapter_config.json", "adapter_model.safetensors")


def serve(hub: Hub, folder: Path) -> None:
    hub.put("acme/tiny-lora", {name: (folder / name).read_bytes() for name in FILES})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_tree_in_the_docstring_is_the_truth(kind: type[AdapterhubError]) -> None:
    assert TREE[kind.__name__] == str(kind.exit_code)


def test_the_tree_holds_no_error_that_is_gone() -> None:
    assert set(TREE) == {kind.__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_becomes_two_lines_and_its_code(
    kind: type[AdapterhubError], capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"hint": "do that"} if kind is not errors.MissingExtraError else {"needed_for": "it"}
    error = kind("models", **known)
    assert _explain(error) == kind.exit_code
    assert capsys.readouterr().err == f"error: {error.message}\nhint:  {error.hint}\n"


def test_a_bug_is_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert _explain(IndexError("list index out of range")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: IndexError: list index out of range\nhint:  this is a bug in")


def not_found(run: CommandLine, place: Path) -> tuple[str, ...]:
    return ("pull", "local:acme/nothing")


def usage(run: CommandLine, place: Path) -> tuple[str, ...]:
    return ("pull", "nothing")


def data(run: CommandLine, place: Path) -> tuple[str, ...]:
    (place / "rows.jsonl").write_text("{}\n")
    return ("eval", "./adapter", "--task", "./rows.jsonl")


def mismatch(run: CommandLine, place: Path) -> tuple[str, ...]:
    write_lora(place / "other", base_model_name_or_path="acme/other", lora_alpha=8)
    weights = place / "other" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\x40")
    return ("stack", "./adapter", "./other", "--dry-run")


def format_(run: CommandLine, place: Path) -> tuple[str, ...]:
    (place / "adapter" / "adapter_config.json").write_text("{")
    return ("show", "./adapter")


def remote(run: CommandLine, place: Path) -> tuple[str, ...]:
    return ("pull", "hub:acme/tiny-lora")


def plugin(run: CommandLine, place: Path) -> tuple[str, ...]:
    run.ok("remote", "add", "shelf", "shelf://top")
    return ("pull", "shelf:acme/tiny-lora")


def verification(run: CommandLine, place: Path) -> tuple[str, ...]:
    (place / "adapter" / "adapter_model.safetensors").write_bytes(b"<!DOCTYPE html>")
    return ("verify", "./adapter")


def storage(run: CommandLine, place: Path) -> tuple[str, ...]:
    run.home.write_text("a file where the folder should be")
    return ("push", "./adapter", "acme/tiny-lora")


Situation = Callable[[CommandLine, Path], tuple[str, ...]]
SITUATIONS: list[tuple[int, Situation]] = [
    (2, usage), (3, not_found), (4, format_), (5, mismatch), (6, data), (7, remote), (9, storage),
    (10, plugin), (12, verification),
]  # fmt: skip


@pytest.mark.parametrize(("code", "situation"), SITUATIONS)
def test_a_failure_ends_with_the_code_of_its_kind(
    adapterhub: CommandLine, adapter: Path, tmp_path: Path, code: int, situation: Situation
) -> None:
    store = "from adapterhub.plugin import hookimpl\n@hookimpl\ndef adapterhub_open_store(uri):\n"
    fails = store + "    if uri.startswith('shelf:'):\n        raise RuntimeError('out of order')"
    site = write_plugin(tmp_path / "site", "adapterhub_shelf", fails)
    run = adapterhub.having(PYTHONPATH=str(site))
    assert adapter
    done = run(*situation(run, tmp_path))
    assert (done.code, len(done.complaint)) == (code, 2), done.err


def test_bytes_that_are_not_the_promised_ones_end_with_4(
    adapterhub: CommandLine, adapter: Path
) -> None:
    with running_hub() as hub:
        serve(hub, adapter)
        hub.faults.append(Fault(kind="wrong_byte", path="safetensors"))
        done = adapterhub.having(HF_ENDPOINT=hub.url)("pull", "acme/tiny-lora", "--json")
    assert (done.code, done.out) == (4, ""), done.err
    assert adapterhub.ok("list", "--json").json == []


def test_a_typo_on_a_hub_is_answered_with_what_its_owner_has(
    adapterhub: CommandLine, adapter: Path
) -> None:
    with running_hub() as hub:
        serve(hub, adapter)
        done = adapterhub.having(HF_ENDPOINT=hub.url)("pull", "acme/tiny-lorra")
    assert (done.code, done.complaint[1]) == (3, "did you mean acme/tiny-lora?")


def test_a_failed_command_still_prints_whole_json_or_none(
    adapterhub: CommandLine, adapter: Path
) -> None:
    verification(adapterhub, adapter.parent)
    done = adapterhub("verify", "./adapter", "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (12, False)
    assert adapterhub("show", "./nothing", "--json").out == ""
