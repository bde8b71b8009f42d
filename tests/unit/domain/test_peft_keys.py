"""Promises of the table of peft's keys, held against the fields of real releases."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.domain.peft_keys import KEYS, NEWEST, for_release
from adapterhub.errors import MismatchError
from tests.peft_releases import ADDED, fields, written

# Written by others than peft, or kept for our own adapters.
EXTRA = {"peft_type", "auto_map"}
EXTRA_PREFIX = {"prompt_tuning_init", "prompt_tuning_init_text"}


@pytest.mark.parametrize("kind", KEYS)
def test_every_key_has_the_release_and_default_of_the_real_class(kind: str) -> None:
    real = {
        key: (since, value) for since, keys in ADDED[kind].items() for key, value in keys.items()
    }
    extra = EXTRA | (EXTRA_PREFIX if kind == "PREFIX_TUNING" else set())
    told = {key: (fact.since, fact.default) for key, fact in KEYS[kind].items() if key not in extra}
    # A type that came later has its shared keys from its first release on.
    first = next(iter(ADDED[kind]))
    for key, (since, default) in real.items():
        assert told[key][1] == default, key
        assert told[key][0] == since or since == first, key
    assert told.keys() == real.keys()


@pytest.mark.models
@pytest.mark.parametrize("kind", KEYS)
def test_the_installed_peft_has_no_key_that_the_table_lacks(kind: str) -> None:
    import peft

    made = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind]()
    if peft.__version__.startswith(f"{NEWEST}."):
        assert set(made.to_dict()) == set(fields(kind, NEWEST)) | {"peft_type"}
    assert set(made.to_dict()) <= set(KEYS[kind])


def test_a_new_config_that_asks_for_nothing_new_suits_an_old_peft() -> None:
    new, old = written("LORA", "0.21"), written("LORA", "0.8")
    kept = for_release(new, old.keys(), release="0.8.2")
    assert kept == {key: value for key, value in new.items() if key in old}


@pytest.mark.parametrize(
    ("key", "value", "fact"),
    [
        ("kasa_config", {}, "came with peft 0.21"),
        ("use_dora", True, "came with peft 0.9"),
        ("lora_bias", True, "came with peft 0.14"),
        ("trainable_token_indices", [3], "came with peft 0.15"),
        ("colour", "red", "is unknown to peft 0.21"),
    ],
)
def test_a_key_that_matters_is_refused_with_the_release_that_brought_it(
    key: str, value: Any, fact: str
) -> None:
    with pytest.raises(MismatchError, match=fact) as caught:
        for_release(
            written("LORA", "0.8") | {key: value},
            fields("LORA", "0.8") | {"peft_type": 1},
            release="0.8.2",
        )
    assert repr(key) in caught.value.message
    assert "0.8.2" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("value", [{"rho": 1}, {"anything": 2}])
def test_how_an_adapter_started_is_not_missed(value: Any) -> None:
    old = fields("LORA", "0.8").keys() | {"peft_type"}
    config = written("LORA", "0.8") | {"eva_config": value}
    assert "eva_config" not in for_release(config, old, release="0.8.2")
