"""Promises of a method about its declaration, its options and its configuration."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

import pytest

from adapterhub.errors import AdapterhubError, UsageError
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain
from adapterhub.testing.ground import Ground

_DECLARE = """
import json, sys
from adapterhub.plugin.catalog import catalog
print(json.dumps([sorted(getattr(catalog(), sys.argv[1]).entries), "torch" in sys.modules]))
"""
# What a command line or a recipe can hold in the place of a number, and of anything.
_NO_NUMBERS: tuple[Any, ...] = (None, "many", [1], {"a": 1})
_ODD: tuple[Any, ...] = (None, "", "no such value", -1, float("nan"), True, [None], {"a": 1})


def check_declared(shelf: str, name: str) -> None:
    names, torch_came = _declared(shelf)
    assert name in names, f"no plugin declares {name!r} among its {shelf}"
    assert not torch_came, f"a plugin imports torch when it declares {name!r}, or another one does"


@functools.cache
def _declared(shelf: str) -> tuple[list[str], bool]:
    """In a new process, so that nothing which was imported here counts."""
    command = [sys.executable, "-c", _DECLARE, shelf]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, torch_came = json.loads(done.stdout)
    return names, torch_came


class Declaring(Ground):
    def test_it_is_found_by_its_entry_point(self) -> None:
        owner = catalog().methods.entries[self.method].owner
        assert any(a.origin == owner and a.problem is None for a in catalog().admissions)

    def test_declaring_it_imports_no_torch(self) -> None:
        check_declared("methods", self.method)

    def test_its_config_survives_its_file(self, base: Base) -> None:
        config = self.config(base)
        assert decode_config(encode_config(config)) == config
        stored = dict(self.attach(base).config)
        assert decode_config(encode_config(stored)) == stored

    def test_an_unknown_option_is_refused(self, base: Base) -> None:
        with pytest.raises(UsageError, match="no_such_option"):
            method_of(self.method).new_config(base.spec, {**self.options, "no_such_option": 1})

    def test_an_option_of_the_wrong_kind_is_refused(self, base: Base) -> None:
        for name, value in self.options.items():
            counted = isinstance(value, int | float) and not isinstance(value, bool)
            for wrong in _NO_NUMBERS if counted else ():
                with pytest.raises(UsageError):
                    method_of(self.method).new_config(base.spec, {**self.options, name: wrong})
            for odd in _ODD:
                _taken_or_refused(self.method, base, {**self.options, name: odd})

    def test_a_config_with_an_unknown_key_is_refused(self, base: Base) -> None:
        before = plain.base_bytes(base.model)
        adapter = self.attach(base)
        config, state = {**adapter.config, "no_such_key": 1}, adapter.state()
        adapter.detach()
        with pytest.raises(AdapterhubError, match="no_such_key"):
            self.attach(base, state=state, config=config)
        assert plain.base_bytes(base.model) == before


def _taken_or_refused(method: str, base: Base, options: dict[str, Any]) -> None:
    """Anything but an error of ours would reach a person as a bug."""
    refusal = None
    try:
        method_of(method).new_config(base.spec, options)
    except AdapterhubError as error:
        refusal = error
    assert refusal is None or refusal.hint, f"{refusal}: no hint says what to do"
