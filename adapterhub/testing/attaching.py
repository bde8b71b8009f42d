"""Promises of a method about one adapter on one base: attaching, storing, detaching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.method import Capability
from adapterhub.errors import MismatchError, UsageError
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain
from adapterhub.testing.ground import Ground, agree, equal, heard
from adapterhub.testing.promises import promise

Spoil = Callable[[dict[str, Any]], Any]


def _lose_one(state: dict[str, Any]) -> None:
    del state[min(state)]


def _add_one(state: dict[str, Any]) -> None:
    first = min(state)
    head, _, tail = first.partition(".")
    state[f"{head}.not_a_layer.{tail}"] = state[first].clone()


def _grow_one(state: dict[str, Any]) -> None:
    tensor = state[min(state)]
    state[min(state)] = tensor.new_zeros(tensor.shape[0] + 1, *tensor.shape[1:])


class Attaching(Ground):
    @promise(needs=Capability.IDENTITY_START)
    def test_a_fresh_adapter_changes_nothing(self, base: Base) -> None:
        bare = heard(base)
        adapter = self.attach(base)
        adapter.activate()
        agree(heard(base, adapter), bare, within=5e-6, what="a fresh adapter and the bare base")

    def test_an_adapter_takes_no_part_until_it_is_activated(self, base: Base) -> None:
        bare = heard(base)
        adapter = self.attach_shaken(base)
        assert equal(heard(base), bare), "an adapter takes part before it is activated"
        adapter.activate()
        active = heard(base, adapter)
        assert float((active - bare).abs().max()) > 1e-4, "an active adapter changes nothing"
        adapter.deactivate()
        assert equal(heard(base), bare), "an adapter takes part after it was deactivated"

    def test_activating_twice_is_activating_once(self, base: Base) -> None:
        adapter = self.attach_shaken(base)
        adapter.activate()
        once = heard(base, adapter)
        adapter.activate()
        assert equal(heard(base, adapter), once)
        adapter.deactivate()
        adapter.deactivate()

    @promise(tensors=True)
    def test_a_seed_decides_its_tensors(self, base: Base) -> None:
        first, again, other = (
            self.attach(base, slot, seed=seed).state()
            for slot, seed in (("one", 5), ("two", 5), ("three", 6))
        )
        assert first.keys() == again.keys() == other.keys()
        assert all(equal(first[name], again[name]) for name in first), "one seed, two adapters"
        if self.seeded is None:
            return
        differs = any(not equal(first[name], other[name]) for name in first)
        assert differs == self.seeded, (
            "two seeds make one adapter: set `seeded = False` where nothing is drawn"
            if self.seeded
            else "two seeds make two adapters, though `seeded` is False"
        )

    @promise(tensors=True)
    def test_its_parameters_are_float32_and_where_the_base_is(self, base: Base) -> None:
        import torch

        for name, tensor in self.attach(base).parameters().items():
            assert tensor.dtype is torch.float32, f"{name} is {tensor.dtype}"
            assert tensor.device.type == base.model.device.type, f"{name} is on {tensor.device}"

    def test_its_state_survives_a_file(self, base: Base, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        adapter = self.attach_shaken(base)
        adapter.activate()
        expected = heard(base, adapter)
        config = encode_config(adapter.config)
        save_file(adapter.state(), tmp_path / "state.safetensors")
        adapter.detach()
        state = load_file(tmp_path / "state.safetensors")
        again = self.attach(base, state=state, seed=9, config=decode_config(config))
        again.activate()
        agree(heard(base, again), expected, within=1e-6, what="before and after the file")
        kept = again.state()
        assert kept.keys() == state.keys()
        assert all(equal(kept[name], state[name]) for name in state), "storing twice differs"

    @promise(tensors=True)
    def test_what_it_stores_is_what_its_config_calls_for(self, base: Base) -> None:
        """As `verify` asks, with a family and without, where the method offers `ChecksTensors`."""
        adapter = self.attach_shaken(base)
        for family in (base.spec.family, None):
            method_of(self.method).check_tensors(adapter.config, adapter.state(), family=family)

    def test_detaching_leaves_the_base_as_it_was(self, base: Base) -> None:
        before, bare = plain.base_bytes(base.model), heard(base)
        one, two = self.attach_shaken(base, "one"), self.attach_shaken(base, "two", seed=1)
        one.activate()
        one.detach()
        two.detach()
        assert plain.base_bytes(base.model) == before, "detaching left something behind"
        assert equal(heard(base), bare)

    def test_a_taken_slot_is_refused(self, base: Base) -> None:
        adapter = self.attach_shaken(base)
        adapter.activate()
        expected = heard(base, adapter)
        with pytest.raises(UsageError):
            self.attach(base)
        assert equal(heard(base, adapter), expected), "the refused adapter changed the first"

    @promise(tensors=True)
    @pytest.mark.parametrize("spoil", [_lose_one, _add_one, _grow_one])
    def test_a_state_that_does_not_fit_is_refused_whole(self, base: Base, spoil: Spoil) -> None:
        before = plain.base_bytes(base.model)
        adapter = self.attach_shaken(base)
        state, config = adapter.state(), adapter.config
        adapter.detach()
        spoil(state)
        with pytest.raises(MismatchError):
            self.attach(base, state=state, config=config)
        assert plain.base_bytes(base.model) == before
        self.attach(base).detach()
