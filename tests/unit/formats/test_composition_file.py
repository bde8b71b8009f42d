"""What some modules weigh is written into composition.toml, and read back strictly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterhub.domain.composition import PinnedComposition, PinnedTerm, Term
from adapterhub.domain.manifest import BaseRecord
from adapterhub.errors import FormatError
from adapterhub.formats.composition_file import decode_composition, encode_composition

SHA = "a" * 64
TOML = f'[base]\nid = "b"\n[[terms]]\nref = "u/a"\nweight = 1\nsha256 = "{SHA}"\n'


def pinned(scales: dict[str, float] | None = None) -> PinnedComposition:
    terms = (PinnedTerm(ref="u/a", weight=0.5, sha256=SHA, scales=scales),)
    return PinnedComposition(base=BaseRecord(id="b"), terms=terms)


def test_scales_come_back_as_they_were() -> None:
    wanted = pinned(scales={"layers.0-11": 0.5, "mlp": 0.0})
    data = encode_composition(wanted)
    assert b'"layers.0-11" = 0.5' in data
    again = decode_composition(data)
    assert again == wanted
    assert encode_composition(again) == data
    assert again.composition.terms == (
        Term(ref="u/a", weight=0.5, scales={"layers.0-11": 0.5, "mlp": 0.0}),
    )


def test_how_weights_were_found_comes_back_as_it_was() -> None:
    found: dict[str, str | int | float] = {
        "weights_searched_on": "rows.jsonl",
        "search_trials": 12,
        "search_gain": 0.25,
    }
    wanted = replace(pinned(), searched=found)
    assert decode_composition(encode_composition(wanted)) == wanted
    assert b"searched" not in encode_composition(pinned())


def test_they_may_be_written_by_hand() -> None:
    read = decode_composition(f'{TOML}scales = {{ "layers.0-11" = 0.5, mlp = 0 }}'.encode())
    assert read.terms[0].scales == {"layers.0-11": 0.5, "mlp": 0.0}


def test_a_file_without_any_is_what_it_was() -> None:
    assert b"scales" not in encode_composition(pinned())
    assert decode_composition(TOML.encode()).terms[0].scales is None


@pytest.mark.parametrize(
    ("scales", "fact"),
    [
        ('{ "ml p" = 0.5 }', r"terms\[0\]\.scales: 'ml p' is no pattern"),
        ("{ mlp = nan }", r"terms\[0\]\.scales: the factor nan of mlp"),
        ("{ mlp = inf }", "the factor inf of mlp"),
        ("{ mlp = 1001 }", "the factor 1001 of mlp"),
        ('{ mlp = "0.5" }', "expected `float`"),
        ("{ mlp = true }", "expected `float`"),
        ('{ "layers.5-3" = 0.5 }', "is no pattern"),
        ("[0.5]", r"expected `object \| null`"),
        ("0.5", r"expected `object \| null`"),
        ('{ "m\\u202elp" = 0.5 }', "control characters"),
        ("{ mlp = 1, mlp = 2 }", "not TOML"),
    ],
)
def test_scales_that_are_none_are_refused_by_file_and_field(scales: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact) as caught:
        decode_composition(f"{TOML}scales = {scales}".encode())
    assert caught.value.message.startswith("composition.toml")
    assert caught.value.hint
