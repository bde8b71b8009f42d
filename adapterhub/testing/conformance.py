"""The promises a method makes, as tests that a plugin inherits.

    class TestHoulsby(MethodConformance):
        method = "houlsby"
        options = {"size": 8}

pytest collects the rest. Every test runs on each of `bases`; one is skipped only for a capability
that the method does not declare, which the reason names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub.domain.method import Capability, Method
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.errors import MismatchError, UsageError
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import method_of
from adapterhub.testing import plain, practice
from adapterhub.testing.tiny import add_tiny_base

_DECLARE = """
import json, sys
from adapterhub.plugin.catalog import catalog
print(json.dumps([sorted(catalog().methods.entries), "torch" in sys.modules]))
"""

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


class MethodConformance:
    """Set `method`; `options` are those of `adapterhub train`, `bases` pairs of family, scheme."""

    method: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    bases: ClassVar[Sequence[tuple[str, str]]] = (("llama", "bf16"), ("llama", "nf4"))

    # --- what the tests stand on ----------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "place" in metafunc.fixturenames:
            ids = ["-".join(place) for place in self.bases]
            metafunc.parametrize("place", self.bases, ids=ids)

    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("home")

    @pytest.fixture
    def base(self, place: tuple[str, str], home: Path) -> Base:
        """Freshly loaded; a quantized one keeps its quantized layers."""
        if place[1] != "bf16":
            self.needs(Capability.QUANTIZED_BASE)
        return add_tiny_base(*place, home, dense=False)

    @property
    def record(self) -> Method:
        return catalog().methods[self.method]

    def needs(self, capability: Capability) -> None:
        if capability not in self.record.capabilities:
            pytest.skip(f"{self.method} does not declare {capability.name}")

    def config(self, base: Base) -> dict[str, Any]:
        return method_of(self.method).new_config(base.spec, self.options)

    def attach(
        self, base: Base, slot: str = "one", *, seed: int = 0, state: Any = None
    ) -> AttachedAdapter:
        method = method_of(self.method)
        return method.attach(base, slot, self.config(base), state=state, seed=seed)

    def attach_shaken(self, base: Base, slot: str = "one", *, seed: int = 0) -> AttachedAdapter:
        """An adapter as training leaves one: none of its numbers where it started."""
        adapter = self.attach(base, slot, seed=seed)
        practice.shake(adapter, seed=seed)
        return adapter

    def patches(self, base: Base, state: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return list(method_of(self.method).patches(self.config(base), state))

    # --- declaring ------------------------------------------------------------------------------

    def test_it_is_found_by_its_entry_point(self) -> None:
        owner = catalog().methods.entries[self.method].owner
        assert any(a.origin == owner and a.problem is None for a in catalog().admissions)

    def test_declaring_it_imports_no_torch(self) -> None:
        command = [sys.executable, "-c", _DECLARE]
        names, torch_came = json.loads(
            subprocess.run(command, capture_output=True, check=True).stdout
        )
        assert self.method in names
        assert not torch_came, f"the plugin of {self.method} imports torch when it declares"

    # --- configuring ----------------------------------------------------------------------------

    def test_its_config_survives_its_file(self, base: Base) -> None:
        config = self.config(base)
        assert decode_config(encode_config(config)) == config

    def test_an_unknown_option_is_refused(self, base: Base) -> None:
        with pytest.raises(UsageError, match="no_such_option"):
            method_of(self.method).new_config(base.spec, {**self.options, "no_such_option": 1})

    # --- attaching ------------------------------------------------------------------------------

    def test_a_fresh_adapter_changes_nothing(self, base: Base) -> None:
        self.needs(Capability.IDENTITY_START)
        bare = plain.logits_of(base.model)
        self.attach(base).activate()
        assert _apart(plain.logits_of(base.model), bare) < 1e-6

    def test_an_adapter_takes_no_part_until_it_is_activated(self, base: Base) -> None:
        bare = plain.logits_of(base.model)
        adapter = self.attach_shaken(base)
        assert _apart(plain.logits_of(base.model), bare) == 0
        adapter.activate()
        assert _apart(plain.logits_of(base.model), bare) > 1e-4
        adapter.deactivate()
        assert _apart(plain.logits_of(base.model), bare) == 0

    def test_one_seed_makes_one_adapter(self, base: Base) -> None:
        first, again = (self.attach(base, slot, seed=5).state() for slot in ("one", "two"))
        assert first.keys() == again.keys()
        assert all(_equal(first[name], again[name]) for name in first)

    def test_its_state_survives_a_file(self, base: Base, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        adapter = self.attach_shaken(base)
        adapter.activate()
        expected = plain.logits_of(base.model)
        save_file(adapter.state(), tmp_path / "state.safetensors")
        adapter.detach()
        self.attach(base, state=load_file(tmp_path / "state.safetensors"), seed=9).activate()
        assert _apart(plain.logits_of(base.model), expected) == 0

    def test_detaching_leaves_the_base_as_it_was(self, base: Base) -> None:
        before = plain.base_bytes(base.model)
        one, two = self.attach_shaken(base, "one"), self.attach_shaken(base, "two", seed=1)
        one.activate()
        one.detach()
        two.detach()
        assert plain.base_bytes(base.model) == before

    @pytest.mark.parametrize("spoil", [_lose_one, _add_one, _grow_one])
    def test_a_state_that_does_not_fit_is_refused_whole(self, base: Base, spoil: Spoil) -> None:
        before = plain.base_bytes(base.model)
        adapter = self.attach_shaken(base)
        state = adapter.state()
        adapter.detach()
        spoil(state)
        with pytest.raises(MismatchError):
            self.attach(base, state=state)
        assert plain.base_bytes(base.model) == before

    # --- training -------------------------------------------------------------------------------

    def test_exactly_its_parameters_train(self, base: Base) -> None:
        self.needs(Capability.TRAIN)
        adapter = self.attach(base)
        before = adapter.state()
        trained: set[int] = set()
        practice.train(
            base,
            adapter,
            on_step=lambda _: trained.update(
                id(p) for p in base.model.parameters() if p.requires_grad
            ),
        )
        assert trained == {id(tensor) for tensor in adapter.parameters().values()}
        after = adapter.state()
        still = [name for name in before if _equal(before[name], after[name])]
        assert still == [], f"these never moved: {still}"

    def test_every_parameter_gets_a_gradient(self, base: Base) -> None:
        self.needs(Capability.TRAIN)
        adapter = self.attach(base)
        practice.train(base, adapter)
        gradients = practice.gradients(base, adapter)
        assert gradients.keys() == adapter.parameters().keys()
        without = [name for name, gradient in gradients.items() if not gradient.any()]
        assert without == [], f"no gradient reaches {without}"

    def test_training_leaves_the_base_as_it_was(self, base: Base) -> None:
        self.needs(Capability.TRAIN)
        before = plain.base_bytes(base.model)
        adapter = self.attach(base)
        practice.train(base, adapter)
        adapter.detach()
        assert plain.base_bytes(base.model) == before

    # --- several --------------------------------------------------------------------------------

    def test_slots_do_not_disturb_each_other(self, base: Base) -> None:
        alone = {}
        for seed, slot in enumerate(("one", "two")):
            adapter = self.attach_shaken(base, slot, seed=seed)
            adapter.activate()
            alone[slot] = plain.logits_of(base.model)
            adapter.detach()
        both = {s: self.attach_shaken(base, s, seed=i) for i, s in enumerate(("one", "two"))}
        for slot, adapter in both.items():
            adapter.activate()
            assert _apart(plain.logits_of(base.model), alone[slot]) == 0, slot
            adapter.deactivate()

    def test_two_adapters_answer_as_the_sum_of_their_patches(
        self, place: tuple[str, str], home: Path, base: Base
    ) -> None:
        self.needs(Capability.STACK)
        dense = add_tiny_base(*place, home, dense=True)
        one, two = self.attach_shaken(base, "one"), self.attach_shaken(base, "two", seed=1)
        folded = plain.fold(dense.model, self.patches(base, one.state()))
        folded = plain.fold(folded, self.patches(base, two.state()), weight=0.5)
        one.activate()
        two.activate(0.5)
        assert _apart(plain.logits_of(base.model), plain.logits_of(folded)) < 1e-4

    @pytest.mark.parametrize("weight", [2.0, -0.5])
    def test_its_weight_scales_its_patches(
        self, place: tuple[str, str], home: Path, base: Base, weight: float
    ) -> None:
        dense, adapter = add_tiny_base(*place, home, dense=True), self.attach_shaken(base)
        patches = self.patches(base, adapter.state())
        if not plain.additive(patches):
            pytest.skip(f"the patches of {self.method} are more than a sum of deltas")
        adapter.activate(weight)
        folded = plain.fold(dense.model, patches, weight=weight)
        assert _apart(plain.logits_of(base.model), plain.logits_of(folded)) < 1e-4

    # --- describing -----------------------------------------------------------------------------

    def test_its_patches_are_what_it_does(self, place: tuple[str, str], home: Path) -> None:
        """In float64, on the values that the base's stored weights stand for."""
        if place[1] != "bf16":
            self.needs(Capability.QUANTIZED_BASE)
        base = add_tiny_base(*place, home, dense=True)
        bare = plain.fold(base.model, ())
        adapter = self.attach_shaken(base)
        patches = self.patches(base, adapter.state())
        if not plain.foldable(patches):
            pytest.skip(f"the patches of {self.method} are not changes of weights")
        adapter.activate()
        base.model.double()
        assert (
            _apart(plain.logits_of(base.model), plain.logits_of(plain.fold(bare, patches))) < 1e-9
        )


def _apart(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def _equal(a: Any, b: Any) -> bool:
    import torch

    return torch.equal(a, b)
