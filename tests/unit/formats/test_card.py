"""Promises of an adapter's card."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.domain.centroid import Centroid, pack
from adapterhub.domain.manifest import BaseRecord, Manifest, Parent, Result
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import FormatError
from adapterhub.formats.card import read_front_matter, renamed_card, render_card

MANIFEST = Manifest(
    method="lora",
    config_version=1,
    base=BaseRecord(id="acme/tiny", revision="a" * 40, scheme=scheme_by_name("nf4")),
    trainer="sft",
    recipe={"steps": 10, "note": "a | b\n# c"},
    parents=(Parent(ref="user/one", weight=0.5, sha256="b" * 64),),
    results=(
        Result(
            task="dates", metric="exact_match", score=0.9, base_score=0.1, n=50, task_digest="d"
        ),
    ),
)


def test_the_front_matter_is_what_the_hugging_face_hub_reads() -> None:
    front = read_front_matter(render_card(MANIFEST, name="user/one"))
    assert front["library_name"] == "peft"
    assert front["base_model"] == "acme/tiny"
    assert front["base_model_relation"] == "adapter"
    assert front["tags"] == ["adapterhub", "lora", "sft"]
    assert front["pipeline_tag"] == "text-generation"
    [result] = front["model-index"][0]["results"]
    assert result["task"] == {"type": "text-generation"}
    assert result["dataset"]["name"] == "dates"
    assert result["metrics"] == [{"type": "exact_match", "value": 0.9, "name": "exact_match"}]


def test_the_page_says_how_to_use_it_and_what_it_was_made_from() -> None:
    card = render_card(MANIFEST, name="user/one")
    for text in (
        "adapterhub pull user/one",
        "adapterhub run user/one",
        "PeftModel.from_pretrained",
        "| dates | exact_match | 0.9 | 0.1 | 50 |",
        "| user/one | 0.5 | bbbbbbbbbbbb |",
        r"a \| b # c",
    ):
        assert text in card


def test_the_page_names_who_taught_it() -> None:
    record = {"base": {"id": "acme/tiny"}, "adapters": [{"ref": "me/t", "sha256": "c" * 64}]}
    card = render_card(dataclasses.replace(MANIFEST, recipe={"taught_by": record}), name="user/one")
    assert f"| taught by | 1 * me/t (sha256 {'c' * 12}) |" in card


def test_the_page_names_what_was_scaled() -> None:
    adapter = {"ref": "me/t", "sha256": "c" * 64, "scales": {"mlp": 0.5, "odd": "x"}}
    parent = dataclasses.replace(MANIFEST.parents[0], scales={"layers.0-3": 0.5, "mlp": 0.0})
    manifest = dataclasses.replace(
        MANIFEST, parents=(parent,), recipe={"taught_by": {"adapters": [adapter]}}
    )
    card = render_card(manifest, name="user/one")
    assert f"| taught by | 1 * me/t (sha256 {'c' * 12}), mlp x 0.5 |" in card
    assert "| user/one | 0.5 | layers.0-3 x 0.5, mlp x 0 | bbbbbbbbbbbb |" in card


def test_no_card_promises_safety() -> None:
    assert "safe" not in render_card(MANIFEST, name="user/one").lower()


def test_a_base_off_the_hub_is_named_for_people_only() -> None:
    local = dataclasses.replace(MANIFEST, base=BaseRecord(id="/home/me/base"))
    card = render_card(local, name="user/one")
    assert "base_model" not in read_front_matter(card)
    assert "/home/me/base" in card


def test_a_text_without_front_matter_has_none() -> None:
    assert read_front_matter("# Hello\n---\nno") == {}
    assert read_front_matter("---\n---\n") == {}


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("---\na: &x [1]\nb: *x\n---\n", "alias"),
        ("---\na: !!python/object/apply:os.system [id]\n---\n", "tag"),
        ("---\na: !!bool maybe\n---\n", "tag"),
        ("---\na: !!int ''\n---\n", "tag"),
        ("---\na: !!timestamp foo\n---\n", "tag"),
        ("---\na: !own {b: 1}\n---\n", "tag"),
        ('---\na: "\\UFFFFFFFF"\n---\n', "not YAML"),
        ("---\na: [\n---\n", "not YAML"),
        ("---\n- a\n---\n", "list of fields"),
        ("---\na: " + "[" * 1000 + "\n---\n", "too deep"),
        ("---\na: " + "x" * 300_000 + "\n---\n", "too long"),
        ("x" * 1_000_001, "limit"),
    ],
)
def test_hostile_front_matter_is_refused(text: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact) as caught:
        read_front_matter(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["2024-99-99", "0x_", "._", "1:" * 400 + "1.5", "<<", "=", "9" * 9_999, "1_0", "yes"]
)
def test_what_is_no_plain_number_stays_a_text(text: str) -> None:
    assert read_front_matter(f"---\na: {text}\n---\n") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("-1.5", -1.5), ("1.0e-05", 1e-05), ("true", True), ("", None)]
)
def test_plain_values_are_read_as_such(text: str, value: object) -> None:
    assert read_front_matter(f"---\na: {text}\n---\n") == {"a": value}


@settings(max_examples=100, deadline=None)
@given(st.text("a1-:.!&*<>=?|%@`'\"[]{},_x0\\U \n#~\t\x85", max_size=30))
def test_no_front_matter_raises_anything_but_a_format_error(text: str) -> None:
    with contextlib.suppress(FormatError):
        read_front_matter(f"---\na: {text}\n---\n")


def test_a_card_is_renamed_where_it_says_how_to_use_it_and_nowhere_else() -> None:
    manifest = Manifest(method="lora", config_version=1, base=BaseRecord(id="acme/tiny"))
    card = render_card(manifest, name="my-dates") + "\nI made my-dates for dates.\n"
    found = renamed_card(card, name="acme/dates")
    assert "$ adapterhub pull acme/dates\n$ adapterhub run acme/dates " in found
    assert "# acme/dates\n" in found
    assert "PeftModel.from_pretrained(base, 'acme/dates')" in found
    assert found.count("my-dates") == 1
    assert renamed_card(found, name="acme/dates") == found
    assert renamed_card("# A card of somebody's own\n", name="acme/dates").count("acme") == 0


def test_the_page_says_of_its_centroid_what_it_is_and_not_its_numbers() -> None:
    centroid = Centroid(
        values=pack((0.6, -0.8)), dimension=2, prompts=64, layer=15, base="b", rule="r"
    )
    card = render_card(dataclasses.replace(MANIFEST, centroid=centroid), name="user/one")
    assert "| centroid | of 64 prompts, 2 numbers after block 15 |" in card
    assert centroid.values not in card
