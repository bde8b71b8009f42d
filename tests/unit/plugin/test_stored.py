"""What is wrong with a stored adapter is told of the adapter, whatever its method raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from adapterhub.domain.patch import Patch
from adapterhub.errors import FormatError, UsageError
from adapterhub.plugin.stored import StoredMethod


class Careless:
    """A stranger's method that trusts what it reads."""

    def new_config(self, base: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        raise UsageError("size is unknown", hint="leave it out")

    def attach(
        self, base: Any, slot: str, config: Mapping[str, Any], *, state: Any = None, seed: int = 0
    ) -> Any:
        if config["size"] < 1:
            raise UsageError("size is out of range", hint="use 1 or more")
        return config

    def patches(
        self, config: Mapping[str, Any], state: Any, base: Any = None
    ) -> Iterator[tuple[str, Patch]]:
        self.attach(base, "", config)
        yield from ()


METHOD = StoredMethod("careless", Careless())
BASE: Any = None


def test_a_key_that_is_missing_is_named_with_file_and_method() -> None:
    words = "adapter_config.json of this careless adapter does not say 'size'"
    with pytest.raises(FormatError, match=words) as caught:
        METHOD.attach(BASE, "one", {}, state={})
    assert caught.value.hint
    with pytest.raises(FormatError, match=words):
        list(METHOD.patches({}, {}))


def test_a_value_that_makes_no_sense_is_a_bad_adapter_and_no_bad_usage() -> None:
    words = "adapter_config.json of this careless adapter: size is out of range"
    with pytest.raises(FormatError, match=words):
        METHOD.attach(BASE, "one", {"size": 0}, state={})
    with pytest.raises(FormatError, match=words):
        list(METHOD.patches({"size": 0}, {}))


def test_a_person_s_own_options_stay_a_matter_of_usage() -> None:
    with pytest.raises(UsageError):
        METHOD.new_config(BASE, {"size": 0})
    with pytest.raises(UsageError):
        METHOD.attach(BASE, "one", {"size": 0})


def test_a_method_that_cannot_tell_says_so() -> None:
    assert METHOD.check_tensors({}, {}, family=None) is False
