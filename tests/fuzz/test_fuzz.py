"""No bytes make a reader crash, hang or swell: it reads them, or refuses in a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterhub.domain.peft_keys import KEYS
from tests.fuzz.run import tried
from tests.fuzz.targets import TARGETS, Target

FINE = ("read", "refused")
TEXT = st.text(max_size=30)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
SHAPE = st.lists(st.integers(-1, 2**70), max_size=9)
ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", "F4", "", 3]), "shape": SHAPE, "data_offsets": SHAPE},
    optional={"more": LEAF},
)
# No surrogates: TOML and YAML files hold none, and their writers would raise instead of ours.
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TOML = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=4),
)
HEAD = {"base": "tiny", "data": "rows.jsonl"}


def _config(kind: str) -> st.SearchStrategy[bytes]:
    keys = st.dictionaries(st.sampled_from(sorted(KEYS[kind])) | TEXT, JSON, max_size=8)
    return keys.map(lambda config: json.dumps(config | {"peft_type": kind}).encode())


def _framed(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


def _merged(target: str, change: dict[str, Any]) -> bytes:
    return json.dumps(json.loads(TARGETS[target].good[0]) | change).encode()


SHAPED: dict[str, st.SearchStrategy[bytes]] = {
    "config": st.sampled_from(sorted(KEYS)).flatmap(_config),
    "weights": (st.dictionaries(TEXT | st.just("__metadata__"), ENTRY | JSON, max_size=4)).map(
        _framed
    ),
    "manifest": st.dictionaries(
        st.sampled_from(["base", "recipe", "parents", "results", "schema_version", "method"]), JSON
    ).map(lambda change: _merged("manifest", change)),
    "base": st.dictionaries(
        st.sampled_from(["scheme", "fingerprint", "modality", "parameters", "note"]), JSON
    ).map(lambda change: _merged("base", change)),
    "composition": st.dictionaries(st.sampled_from(["base", "terms", "rank", "x"]), TOML).map(
        lambda table: tomli_w.dumps(table).encode()
    ),
    "recipe": st.dictionaries(st.sampled_from(["options", "steps", "eval_data", "x"]), TOML).map(
        lambda table: tomli_w.dumps({**HEAD, **table}).encode()
    ),
    "card": st.dictionaries(PLAIN, TOML).map(
        lambda front: f"---\n{yaml.safe_dump(front, allow_unicode=True)}---\n".encode()
    ),
    "rows": st.lists(JSON, max_size=4).map(
        lambda rows: b"\n".join(json.dumps(row).encode() for row in rows)
    ),
    "ref": TEXT.map(lambda text: text.encode(errors="replace")),
    "expression": st.lists(TEXT | st.just("0.5*u/a"), max_size=4).map(
        lambda parts: "+".join(parts).encode(errors="replace")
    ),
    "paths": st.lists(TEXT, max_size=6).map(
        lambda names: "\n".join(names).encode("utf-8", "replace")
    ),
}


def fuzz(inputs: int, seed: int) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose memory is limited."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--inputs", str(inputs), "--seed", str(seed)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_two_thousand_hostile_inputs_are_read_or_refused() -> None:
    done = fuzz(2000, seed=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout


@pytest.mark.long
def test_twenty_thousand_hostile_inputs_are_read_or_refused() -> None:
    done = fuzz(20_000, seed=2)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SHAPED)
def test_values_of_every_kind_in_every_place_are_read_or_refused(name: str) -> None:
    check_shaped(name, 60)


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPED)
def test_many_more_values_of_every_kind_are_read_or_refused(name: str) -> None:
    check_shaped(name, 2000)


def check_shaped(name: str, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(SHAPED[name])
    def check(data: bytes) -> None:
        assert tried(TARGETS[name], data) in FINE, data

    check()


def test_every_target_has_shaped_values_and_good_bytes() -> None:
    assert SHAPED.keys() == TARGETS.keys()
    for target in TARGETS.values():
        assert all(tried(target, good) == "read" for good in target.good)


def _slow(_: bytes) -> None:
    end = time.process_time() + 1.1
    while time.process_time() < end:
        pass


def _broken(data: bytes) -> None:
    raise KeyError(data)


def _greedy(_: bytes) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("read", "found"), [(_slow, r"1\.\d s"), (_broken, "KeyError"), (_greedy, "more than 256 MB")]
)
def test_a_reader_that_crashes_hangs_or_swells_is_found(read: Any, found: str) -> None:
    assert re.match(found, tried(Target((b"",), read), b""))
