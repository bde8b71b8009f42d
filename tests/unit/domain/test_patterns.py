"""Promises of the rule by which a pattern is about a module."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.domain.patterns import matching_key, value_for

NAME = "model.layers.1.self_attn.q_proj"
CASES = [
    ("q_proj", True),
    ("self_attn.q_proj", True),
    (NAME, True),
    ("attn.q_proj", False),
    ("proj", False),
    ("self.attn.q_proj", True),  # a dot is any character
    (r"layers\.\d+\.self_attn\.q_proj", True),
    (r"layers\.[02]\..*", False),
    ("k_proj|q_proj", True),
    ("^model.*", True),
    ("^layers.*", False),
    ("x" * 99, False),
]


@pytest.mark.parametrize(("key", "matches"), CASES)
def test_a_pattern_is_for_the_name_or_its_end_after_a_dot(key: str, matches: bool) -> None:
    assert (matching_key(NAME, [key]) is not None) == matches


def test_the_first_of_several_patterns_wins() -> None:
    assert value_for(NAME, {"k_proj": 1, ".*proj": 2, "q_proj": 3}, 4) == 2


@pytest.mark.parametrize("patterns", [None, {}, {"k_proj": 1}])
def test_without_a_pattern_the_default_stays(patterns: dict[str, int] | None) -> None:
    assert value_for(NAME, patterns, 8) == 8


@pytest.mark.models
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("aq_.", min_size=1, max_size=5)), st.text("aq_.", min_size=1, max_size=9))
def test_the_installed_peft_picks_the_same_pattern(keys: list[str], name: str) -> None:
    from peft.utils.other import get_pattern_key

    assert (matching_key(name, keys) or name) == get_pattern_key(keys, name)
