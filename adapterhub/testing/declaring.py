"""Promises of a method about its declaration, its options and its configuration."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from adapterhub.errors import AdapterhubError, FormatError, UsageError
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
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
         ValueError)  # fmt: skip
# What an editor or a cut transfer can leave in a stored config.
_EDITED: tuple[Any, ...] = (None, "no such value", -1, [None], {"a": 1})


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
            self.configure(base, {**self.options, "no_such_option": 1})

    def test_an_option_of_the_wrong_kind_is_refused(self, base: Base) -> None:
        for name, value in self.options.items():
            counted = isinstance(value, int | float) and not isinstance(value, bool)
            for wrong in _NO_NUMBERS if counted else ():
                with pytest.raises(UsageError):
                    self.configure(base, {**self.options, name: wrong})
            for odd in _ODD:
                # Anything but an error of ours would reach a person as a bug.
                with _clear(f"the option {name}={odd!r}"):
                    self.configure(base, {**self.options, name: odd})

    def test_the_options_its_record_names_are_those_it_takes(self, base: Base) -> None:
        """`adapterhub methods NAME` is where a person learns of them."""
        named = self.record.options
        unnamed = sorted(self.options.keys() - named.keys())
        assert not named or not unnamed, f"its record does not name {unnamed}"
        for name in named:
            try:
                self.configure(base, {**self.options, name: [None]})
            except AdapterhubError as error:
                if f"no option {name!r}" in error.message:
                    raise AssertionError(f"its record names {name}: {error}") from error

    def test_a_config_with_an_unknown_key_is_refused(self, base: Base) -> None:
        before = plain.base_bytes(base.model)
        adapter = self.attach(base)
        config, state = {**adapter.config, "no_such_key": 1}, adapter.state()
        adapter.detach()
        with pytest.raises(AdapterhubError, match="no_such_key"):
            self.attach(base, state=state, config=config)
        assert plain.base_bytes(base.model) == before

    def test_a_config_that_was_cut_or_edited_is_refused_with_a_reason(self, base: Base) -> None:
        """A key less or an odd value may do no harm, but never ends in anything but a clear error,
        whether the adapter is attached or described."""
        before = plain.base_bytes(base.model)
        adapter = self.attach(base)
        whole, state = dict(adapter.config), adapter.state()
        adapter.detach()
        cut = [{k: v for k, v in whole.items() if k != key} for key in whole]
        edited = [{**whole, key: odd} for key in whole for odd in _EDITED]
        for number, config in enumerate([*cut, *edited]):
            what = f"the config {config}, once {whole},"
            try:
                checked = decode_config(encode_config(config))
            except FormatError:
                continue
            for known in (None, base):
                with _clear(what):
                    list(method_of(self.method).patches(checked, state, known))
            with _clear(what):
                self.attach(base, f"cut{number}", state=state, config=checked).detach()
        assert plain.base_bytes(base.model) == before


@contextmanager
def _clear(what: str) -> Iterator[None]:
    """Let through what works, and what is refused with a hint."""
    try:
        yield
    except AdapterhubError as error:
        if not error.hint:
            raise AssertionError(f"{what} is refused without a hint: {error}") from error
    except _BUGS as error:
        raise AssertionError(f"{what} ends in {type(error).__name__}: {error}") from error
