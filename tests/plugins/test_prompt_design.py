"""Prompt design: a conversation with an adapter before it, and an adapter without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import Message
from adapterhub.domain.patch import Prompt
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import FormatError, MismatchError, NoEffectError, UsageError
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.formats.base_spec import decode_base
from adapterhub.hub.verify import verify_folder
from adapterhub_plugins.prompt_design.design import MAX_CHARACTERS, MAX_EXAMPLES, Design
from adapterhub_plugins.prompt_design.method import PromptDesign
from tests.base_records import write_base_record

SHOTS = [{"prompt": "dog", "completion": "god"}, {"prompt": "abc", "completion": "cba"}]
WHOLE: dict[str, Any] = {
    "method": "prompt_design",
    "base_model_name_or_path": "acme/tiny",
    "system": "Spell it backwards.",
    "examples": SHOTS,
    "template": "Word: {prompt}",
}


def talk(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role=role, content=text) for role, text in turns)  # type: ignore[arg-type]


def said(design: Design, *turns: tuple[str, str]) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in design.put_before(talk(*turns))]


def new(tmp_path: Path, **options: Any) -> dict[str, Any]:
    name = write_base_record(tmp_path, "tiny")
    spec = decode_base((tmp_path / "bases" / name / "base.json").read_bytes(), name="base.json")
    assert spec.scheme == scheme_by_name("nf4")
    return PromptDesign().new_config(spec, options)


# --- the conversation -------------------------------------------------------------------------


def test_examples_stand_before_the_conversation_in_the_form_of_the_prompt() -> None:
    design = Design(system="S", examples=(("dog", "god"),), template="Word: {prompt}!")
    assert said(design, ("user", "cat")) == [
        ("system", "S"),
        ("user", "Word: dog!"),
        ("assistant", "god"),
        ("user", "Word: cat!"),
    ]


def test_a_system_message_of_the_conversation_has_the_last_word() -> None:
    assert said(Design(system="S"), ("system", "own"), ("user", "q")) == [
        ("system", "S\n\nown"),
        ("user", "q"),
    ]


def test_a_system_message_stays_first_where_the_design_has_none() -> None:
    found = said(Design(examples=(("a", "b"),)), ("system", "own"), ("user", "q"))
    assert [role for role, _ in found] == ["system", "user", "assistant", "user"]


def test_only_the_last_user_message_is_put_into_the_template() -> None:
    turns = (("user", "one"), ("assistant", "two"), ("user", "{prompt}"))
    assert [text for _, text in said(Design(template="<{prompt}>"), *turns)] == [
        "one",
        "two",
        "<{prompt}>",
    ]


def test_a_brace_that_is_no_place_stays_as_it_is() -> None:
    design = Design(template='{"q": "{prompt}", "a": {}}')
    assert said(design, ("user", "x"))[0][1] == '{"q": "x", "a": {}}'


# --- its config -------------------------------------------------------------------------------


def test_a_config_holds_what_was_given_and_survives_its_file(tmp_path: Path) -> None:
    config = new(tmp_path, system=WHOLE["system"], examples=SHOTS, template=WHOLE["template"])
    assert config == WHOLE
    assert decode_config(encode_config(config)) == config
    assert set(new(tmp_path / "again", system="S", template="", examples=[])) == {
        "method",
        "base_model_name_or_path",
        "system",
    }


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"sytem": "S"}, "no option 'sytem'"),
        ({"system": 3}, "system is not text"),
        ({"system": "half \ud800"}, "half a character"),
        ({"system": "x" * (MAX_CHARACTERS + 1)}, "the limit is 64,000"),
        ({"template": "no place"}, "0 times"),
        ({"template": "{prompt} {prompt}"}, "2 times"),
        ({"examples": "dog => god"}, "not a list"),
        ({"examples": [SHOTS[0]] * (MAX_EXAMPLES + 1)}, "not a list of up to 256"),
        ({"examples": [{"prompt": "a"}]}, "example 1 does not have exactly"),
        ({"examples": [SHOTS[0], {"prompt": "a", "completion": " "}]}, "completion of example 2"),
        ({"examples": [{"prompt": 1, "completion": "a"}]}, "prompt of example 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: Mapping[str, Any], fact: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=fact):
        new(tmp_path, **options)


@pytest.mark.parametrize("options", [{}, {"system": " \n"}, {"template": "{prompt}"}])
def test_a_design_that_changes_nothing_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NoEffectError, match="changes nothing"):
        new(tmp_path, **options)


def test_its_patch_is_what_it_puts_before_a_prompt() -> None:
    [(module, patch)] = PromptDesign().patches(WHOLE, {})
    assert module == ""
    assert isinstance(patch, Prompt)
    assert patch.messages[:2] == (("system", "Spell it backwards."), ("user", "Word: dog"))
    assert patch.template == "Word: {prompt}"


@pytest.mark.parametrize("change", [{"method": "lora"}, {"temperature": 1}, {"system": 7}])
def test_a_stored_config_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        list(PromptDesign().patches({**WHOLE, **change}, {}))


def test_tensors_are_none_of_its(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="stores no tensors"):
        list(PromptDesign().patches(WHOLE, {"stray": object()}))


# --- its folder -------------------------------------------------------------------------------


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**WHOLE, **changes}))
    return folder


def codes(folder: Path) -> list[str]:
    return [problem.code for problem in verify_folder(folder).problems]


def test_a_config_alone_is_a_whole_adapter(tmp_path: Path) -> None:
    report = verify_folder(write(tmp_path))
    assert report.ok
    assert report.facts["method"] == "prompt_design"
    assert report.facts["base"] == "acme/tiny"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"template": "none"}, "bad-config"),
        ({"surplus": 1}, "bad-config"),
        ({"system": "", "examples": [], "template": ""}, "no-effect"),
    ],
)
def test_a_config_that_breaks_the_methods_rules_is_found(
    changes: dict[str, Any], code: str, tmp_path: Path
) -> None:
    assert codes(write(tmp_path, **changes)) == [code]


def test_weights_beside_a_design_are_one_file_too_many(tmp_path: Path) -> None:
    (write(tmp_path) / "adapter_model.safetensors").write_bytes(b"anything")
    assert codes(tmp_path) == ["unexpected-weights"]


def test_a_manifest_of_another_method_is_found(tmp_path: Path) -> None:
    manifest = {
        "method": "ia3",
        "config_version": 1,
        "schema_version": 1,
        "base": {"id": "acme/tiny"},
    }
    (write(tmp_path) / "adapterhub.json").write_text(json.dumps(manifest))
    assert "method-disagrees" in codes(tmp_path)
