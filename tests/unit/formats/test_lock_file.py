"""`adapters.toml` and `adapters.lock`: the same value has the same bytes, and slips are named."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from adapterhub.domain.base import Fingerprint
from adapterhub.domain.lock import (
    Lock,
    LockedAdapter,
    LockedFile,
    LockedPlugin,
    LockedRepository,
    Wanted,
)
from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.errors import FormatError, UsageError
from adapterhub.formats.lock_file import (
    decode_lock,
    decode_wanted,
    encode_lock,
    new_wanted,
    with_wanted,
)

REPOSITORY = LockedRepository(
    ref="acme/a",
    remote="local",
    repo_uuid="u1",
    commit="c" * 40,
    method="lora",
    files=(
        LockedFile(path="adapter_config.json", size=2, sha256="a" * 64),
        LockedFile(path="adapter_model.safetensors", size=9, sha256="b" * 64),
    ),
)
ADAPTER = LockedAdapter(
    name="a",
    wanted=Wanted(ref="acme/a", revision="v1", base="tiny", allow=("no-effect",)),
    adapter=REPOSITORY,
    base=BaseRecord(
        id="acme/tiny",
        revision="0" * 40,
        fingerprint=Fingerprint(layout="1" * 64, sketch="2" * 64, content="3" * 64),
        scheme=scheme_by_name("nf4"),
    ),
    plugins=(LockedPlugin(brings="lora", distribution="adapterhub", version="0.1.0"),),
    members=(replace(REPOSITORY, ref="acme/b"),),
)
LOCK = Lock(adapters=(ADAPTER, replace(ADAPTER, name="b"), replace(ADAPTER, name="c")))


def test_a_lock_comes_back_as_it_was() -> None:
    assert decode_lock(encode_lock(LOCK)) == LOCK


def test_the_same_lock_has_the_same_bytes_in_whatever_order_it_was_made() -> None:
    shuffled = list(LOCK.adapters)
    random.Random(1).shuffle(shuffled)
    assert encode_lock(Lock(adapters=tuple(shuffled))) == encode_lock(LOCK)
    assert encode_lock(decode_lock(encode_lock(LOCK))) == encode_lock(LOCK)


def test_what_a_person_wrote_stays_when_an_adapter_is_added() -> None:
    by_hand = b'# ours\n[adapters.a]\nref = "acme/a"  # the good one\n'
    made = with_wanted(by_hand, "b", Wanted(ref="acme/b", remote="team", allow=("x",)))
    assert made.startswith(by_hand.rstrip())
    found = decode_wanted(made).adapters
    assert found["a"] == Wanted(ref="acme/a")
    assert found["b"] == Wanted(ref="acme/b", remote="team", allow=("x",))


def test_a_name_is_added_once() -> None:
    once = with_wanted(new_wanted(), "a", Wanted(ref="acme/a"))
    with pytest.raises(UsageError, match="already has an adapter called 'a'"):
        with_wanted(once, "a", Wanted(ref="acme/b"))


@pytest.mark.parametrize("name", ["../up", "con", "a b", "", "x/y"])
def test_a_name_that_is_no_folder_everywhere_is_not_added(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be added"):
        with_wanted(new_wanted(), name, Wanted(ref="acme/a"))


def test_a_file_of_another_form_is_left_to_its_author() -> None:
    with pytest.raises(UsageError, match="cannot be added"):
        with_wanted(b'adapters = { a = { ref = "acme/a" } }\n', "b", Wanted(ref="acme/b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adapters = 3", "adapters: expected"),
        ('[adapters.a]\nref = "acme/a"\nrevison = "v1"', "revison: unknown field"),
        ("[adapters.a]\n", "missing required field `ref`"),
        ('[adapters.a]\nref = "local:acme/a@v1"', "is more than a name"),
        ('[adapters.a]\nref = "acme"', "is not the name of an adapter"),
        ('[adapters.a]\nref = "acme/a"\nrevision = "../x"', "is not a revision"),
        ('[adapters."a\\u202e"]\nref = "acme/a"', "control characters"),
        ('[adapters.a]\nref = "acme/a"\n[adapters.A]\nref = "acme/a"', "one folder on some"),
        ("schema_version = 2", "schema_version 2"),
        ("x = ", "is not TOML"),
        ("x = " + "[" * 5000, "is not TOML|nested too deep"),
    ],
)
def test_a_slip_in_what_is_wanted_is_named(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        decode_wanted(text.encode())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f'commit = "{"c" * 40}"', 'commit = "../../x"', "commit"),
        ("a" * 64, "A" * 64, "no size and sha256"),
        ("size = 2\n", "size = -2\n", "no size and sha256"),
        ('path = "adapter_config.json"', 'path = "zz.json"', "not in order"),
        ('remote = "local"', 'remote = "../x"', "is not the name of a remote"),
        ('name = "b"', 'name = "A"', "one folder on some"),
        ("schema_version = 1", "schema_version = 9", "schema_version 9"),
        ('method = "lora"', 'methd = "lora"', "missing required field `method`"),
    ],
)
def test_a_slip_in_a_lock_is_named(old: str, new: str, said: str) -> None:
    text = encode_lock(LOCK).decode()
    assert old in text
    with pytest.raises(FormatError, match=said):
        decode_lock(text.replace(old, new).encode())


def test_a_lock_that_is_cut_anywhere_raises_nothing_but_what_names_it() -> None:
    data = encode_lock(LOCK)
    refused = 0
    for length in range(0, len(data), 7):
        try:
            decode_lock(data[:length])
        except FormatError as error:
            refused += error.message.startswith("adapters.lock")
    assert refused > len(data) / 7 * 0.9
