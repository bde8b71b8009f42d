"""Promises of adapterhub.json, base descriptions and composition.toml."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.centroid import Centroid, pack
from adapterhub.domain.composition import Composition, PinnedComposition, PinnedTerm, Term
from adapterhub.domain.evaluation import Message
from adapterhub.domain.manifest import BaseRecord, Manifest, Parent, PluginRecord, Result
from adapterhub.domain.probe import Environment, Golden, Position, Probe
from adapterhub.domain.quantization import Scheme, scheme_by_name
from adapterhub.errors import FormatError
from adapterhub.formats.base_spec import decode_base, encode_base
from adapterhub.formats.composition_file import decode_composition, encode_composition
from adapterhub.formats.manifest import decode_manifest, encode_manifest

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=12)
NUMBER = st.floats(-1e6, 1e6)
SHA = st.text("0123456789abcdef", min_size=64, max_size=64)
PLAIN = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | NUMBER | TEXT
BASES = st.builds(
    BaseRecord,
    id=TEXT,
    revision=st.none() | TEXT,
    family=st.none() | TEXT,
    fingerprint=st.none() | st.builds(Fingerprint, layout=SHA, sketch=SHA, content=SHA),
    scheme=st.none() | st.sampled_from(["nf4", "int8", "bf16"]).map(scheme_by_name),
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
PROBES = st.builds(
    Probe,
    prompts=SHA,
    adapter=SHA,
    tensors=st.integers(0, 99),
    bound=st.integers(0, 99),
    relative=st.floats(0, 9),
    norms=st.dictionaries(TEXT, st.floats(0, 1e6), max_size=3),
    positions=st.lists(
        st.builds(
            Position,
            tokens=st.just((1, 20)),
            without=st.tuples(NUMBER, NUMBER),
            having=st.tuples(NUMBER, NUMBER),
        ),
        max_size=2,
    ).map(tuple),
    environment=st.builds(
        Environment,
        base=SHA,
        scheme=st.just(scheme_by_name("nf4")),
        dtype=TEXT,
        device=TEXT,
        torch=TEXT,
        transformers=TEXT,
    ),
)
SAMPLES = st.builds(
    Golden,
    messages=st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user"]), content=WORDS), max_size=2
    ).map(tuple),
    answer=WORDS,
)
CENTROIDS = st.builds(
    Centroid,
    values=st.just(pack((0.6, -0.8))),
    dimension=st.just(2),
    prompts=st.integers(1, 99),
    layer=st.integers(0, 99),
    base=SHA,
    rule=TEXT,
)
MANIFESTS = st.builds(
    Manifest,
    method=TEXT,
    config_version=st.integers(1, 9),
    base=BASES,
    plugin=st.none() | st.builds(PluginRecord, distribution=st.just("adapterhub-x"), version=TEXT),
    recipe=st.none() | st.dictionaries(TEXT, PLAIN | st.dictionaries(TEXT, PLAIN), max_size=4),
    data_sha256=st.none() | SHA,
    parents=st.lists(st.builds(Parent, ref=TEXT, weight=NUMBER, sha256=SHA)).map(tuple),
    results=st.lists(
        st.builds(
            Result, task=TEXT, metric=TEXT, score=NUMBER, base_score=NUMBER, n=st.integers(0, 99),
            task_digest=SHA,
        ),
        max_size=3,
    ).map(tuple),
    allowed=st.lists(TEXT, max_size=3).map(tuple),
    inferred=st.booleans(),
    probe=st.none() | PROBES,
    golden=st.lists(SAMPLES, max_size=2).map(tuple),
    centroid=st.none() | CENTROIDS,
)  # fmt: skip
WEIGHT = st.floats(-1e3, 1e3).filter(bool)
COMPOSITIONS = st.builds(
    PinnedComposition,
    base=BASES,
    strategy=TEXT,
    rank=st.none() | st.integers(1, 4096),
    terms=st.lists(
        st.builds(PinnedTerm, ref=TEXT, weight=WEIGHT, sha256=SHA, commit=st.none() | TEXT),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
SMALL = Manifest(method="lora", config_version=1, base=BaseRecord(id="acme/tiny"))


@settings(max_examples=50, deadline=None)
@given(MANIFESTS)
def test_a_manifest_survives_its_file(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert encode_manifest(decode_manifest(data)) == data


@settings(max_examples=50, deadline=None)
@given(COMPOSITIONS)
def test_a_composition_survives_its_file(pinned: PinnedComposition) -> None:
    assert decode_composition(encode_composition(pinned)) == pinned


def test_a_base_survives_its_file() -> None:
    spec = BaseSpec(
        name="tiny", id="acme/tiny", source="acme/tiny", revision="a" * 40, family="llama",
        modality="causal-lm", scheme=Scheme(name="nf4", block_size=64, double_quant=True),
        fingerprint=Fingerprint(layout="l", sketch="s", content="c"), parameters=10,
        stored_bytes=5, context_length=64,
    )  # fmt: skip
    assert decode_base(encode_base(spec), name="base.json") == spec


def test_what_is_unknown_is_left_out_of_the_file() -> None:
    data = encode_manifest(SMALL)
    assert b"null" not in data
    assert data.endswith(b"}\n")
    assert "trainer" not in json.loads(data)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"colour": 1}, "colour: unknown field"),
        ({"base": {"id": "x", "colour": 1}}, r"base\.colour: unknown field"),
        ({"base": {"id": 3}}, r"base\.id: expected `str`"),
        ({"base": None}, "base: expected"),
        ({"inferred": 1}, "inferred: expected `bool`"),
        ({"parents": [{"ref": "a", "weight": "1", "sha256": ""}]}, r"parents\[0\]\.weight"),
        ({"parents": [{"ref": "a", "weight": 1, "sha256": "", "x": 0}]}, r"parents\[0\]\.x"),
        ({"method": "\x1b[2Jlora"}, "method: control characters"),
        ({"base": {"id": "acme/tiny\n  effect   checked"}}, r"base\.id: control characters"),
        ({"base": {"id": "a", "revision": "\t"}}, r"base\.revision: control characters"),
        ({"trainer": "\u202egnp.exe"}, "trainer: control characters"),
        ({"strategy": "\u2066svd"}, "strategy: control characters"),
        ({"recipe": {"a\nb": 1}}, "control characters"),
        ({"schema_version": 2, "colour": 1}, "2 is newer than 1"),
        ({"schema_version": True}, "schema_version"),
        ({"schema_version": "1"}, "schema_version"),
    ],
)
def test_a_bad_field_is_refused_by_file_and_name(change: dict[str, Any], fact: str) -> None:
    data = json.dumps(json.loads(encode_manifest(SMALL)) | change).encode()
    with pytest.raises(FormatError, match=fact) as caught:
        decode_manifest(data)
    assert caught.value.message.startswith("adapterhub.json")
    assert caught.value.hint


def test_a_newer_schema_says_to_upgrade() -> None:
    with pytest.raises(FormatError) as caught:
        decode_manifest(b'{"schema_version": 7}')
    assert "was written by a newer adapterhub" in caught.value.message
    assert caught.value.hint == "pip install --upgrade adapterhub"


def test_a_manifest_that_could_not_be_read_back_is_not_written() -> None:
    bad = Manifest(method="a\x00b", config_version=1, base=SMALL.base)
    with pytest.raises(FormatError, match="method"):
        encode_manifest(bad)


TOML = '[base]\nid = "b"\n[[terms]]\nref = "u/a"\nweight = {}\nsha256 = "{}"\n'


def test_a_pinned_composition_gives_the_plain_one() -> None:
    pinned = decode_composition(TOML.format(0.5, "a" * 64).encode())
    assert pinned.composition == Composition(terms=(Term(ref="u/a", weight=0.5),))


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (TOML.format("nan", "a" * 64), "weight"),
        (TOML.format("inf", "a" * 64), "weight"),
        (TOML.format(0, "a" * 64), "weight"),
        (TOML.format('"1"', "a" * 64), "weight"),
        (TOML.format("1979-05-27", "a" * 64), "weight"),
        (TOML.format(1, "a" * 63), "sha256"),
        (TOML.format(1, "a" * 64) + "extra = 1", r"terms\[0\]\.extra"),
        ('terms = []\n[base]\nid = "b"', "terms"),
        ("x = " + "[" * 5000, "nested|not TOML"),
        ("x = " + "9" * 5000, "not TOML"),
        ("= 1", "not TOML"),
        ("#" * 1_000_001, "limit"),
    ],
)
def test_a_bad_composition_is_refused(text: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact) as caught:
        decode_composition(text.encode())
    assert "composition.toml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "--index-url=x", "a; rm -r /", "a b", "-r", "x" * 101])
def test_a_plugin_is_named_by_a_distribution_and_nothing_else(name: str) -> None:
    """A hint shows it behind `pip install`."""
    made = Manifest(
        method="own",
        config_version=1,
        base=BaseRecord(id="a/b"),
        plugin=PluginRecord(distribution=name, version="1.0"),
    )
    with pytest.raises(FormatError, match=r"plugin.distribution"):
        encode_manifest(made)


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"values": "no base64"}, "not base64"),
        ({"dimension": 3}, "holds 4 bytes, and its dimension calls for 6"),
        ({"values": pack((0.5, 0.5))}, "not of length 1"),
        ({"prompts": "many"}, "prompts"),
        ({"weight": 1}, "unknown field"),
    ],
)
def test_a_centroid_that_is_none_is_refused_naming_it(changes: dict[str, Any], fact: str) -> None:
    centroid = {
        "values": pack((0.6, -0.8)), "dimension": 2, "prompts": 3, "layer": 1, "base": "b",
        "rule": "r",
    }  # fmt: skip
    good = {"schema_version": 1, "method": "lora", "config_version": 1, "base": {"id": "a/b"}}
    assert decode_manifest(json.dumps({**good, "centroid": centroid}).encode()).centroid
    with pytest.raises(FormatError, match=f"adapterhub.json: centroid.*{fact}"):
        decode_manifest(json.dumps({**good, "centroid": {**centroid, **changes}}).encode())
